"""A checkpoint under evaluation, run by transformers: what a bundle's scores are compared with."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.answer.decoding.options import option_ids, token_logprobs
from edge_mllm.answer.timings import per_second
from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.errors import ContextOverflowError
from edge_mllm.measure.eval.answerer import Reply
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.reference.model import load_model
from edge_mllm_export.reference.processor import load_processor
from edge_mllm_export.reference.reference import forget_positions
from edge_mllm_export.source.source import resolve_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


class ReferenceAnswerer:
    """Answers greedily: the checkpoint's processor (PIL image backend), its chat template, argmax, its stop tokens."""

    engine = "transformers"

    def __init__(self, source: str, *, dtype: str = "auto", threads: int | None = None) -> None:
        """Load a checkpoint.

        Args:
            source: A checkpoint directory, a hub id or ``shape:NAME``, as ``edge-mllm export`` takes it.
            dtype: ``auto`` (as stored), ``float32`` or ``bfloat16``.
            threads: Of PyTorch, for the whole process; None leaves them as they are.

        Raises:
            SourceError: The source leads nowhere.
            UnsupportedArchitectureError: No family reads it.
        """
        import torch
        from transformers.utils.logging import disable_progress_bar

        if threads is not None:
            torch.set_num_threads(threads)
        disable_progress_bar()
        self._scratch = TemporaryDirectory(prefix="edge-mllm-reference-")
        checkpoint = resolve_source(source, Path(self._scratch.name))
        family = find_family(checkpoint)
        self._stop = family.prompt(checkpoint).stop_token_ids
        self._context = family.decoder(checkpoint).context_length
        self._processor = load_processor(checkpoint, family)
        self._model = load_model(checkpoint, resolve_task(checkpoint, family).model_class, dtype)
        self._image_token_id = family.prompt(checkpoint).image_token_id
        self.name = checkpoint.path.name
        self.sha256 = checkpoint.sha256()
        if dtype != "auto":
            self.engine = f"transformers {dtype}"

    def answer(self, question: str, images: Sequence[Image], max_new_tokens: int) -> Reply:
        """Answer a prompt about RGB pictures; the first token's time includes preprocessing and the tower."""
        import torch

        start = time.perf_counter()
        inputs = self._inputs([_user(question, len(images))], images, generate=True)
        length = self._check_length(inputs, 1)
        forget_positions(self._model)
        with torch.inference_mode():
            output = self._model(**inputs, use_cache=True, logits_to_keep=1)
            tokens = [int(output.logits[0, -1].argmax())]
            first = time.perf_counter()
            limit = min(max_new_tokens, self._context - length)
            while tokens[-1] not in self._stop and len(tokens) < limit:
                last = torch.tensor([tokens[-1:]])
                output = self._model(input_ids=last, past_key_values=output.past_key_values, use_cache=True)
                tokens.append(int(output.logits[0, -1].argmax()))
        decode_s = time.perf_counter() - first
        said = tokens[:-1] if tokens[-1] in self._stop else tokens
        text = self._processor.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        rate = per_second(len(tokens) - 1, decode_s)
        timings = {"ttft_s": first - start, "decode_s": decode_s, "decode_tps": rate}
        image_tokens = int((inputs["input_ids"] == self._image_token_id).sum())
        usage = {"prompt_tokens": length, "image_tokens": image_tokens, "completion_tokens": len(tokens)}
        return Reply(text=text, timings=timings, usage=usage)

    def option_logprobs(self, question: str, images: Sequence[Image], options: Sequence[str]) -> list[float]:
        """Return the mean log-probability per token of each option as the whole answer, its stop token included."""
        messages = [_user(question, len(images))]
        prompt = _ids(self._inputs(messages, images, generate=True))
        logprobs = []
        for option in options:
            said = {"role": "assistant", "content": [{"type": "text", "text": option}]}
            inputs = self._inputs([*messages, said], images, generate=False)
            ids = option_ids(prompt, _ids(inputs), self._stop, option)
            self._check_length(inputs, 0)
            logprobs.append(float(token_logprobs(self._logits(inputs, len(prompt), len(ids)), ids).mean()))
        return logprobs

    def _inputs(self, messages: list[dict[str, Any]], images: Sequence[Image], *, generate: bool) -> Any:
        import torch

        inputs = self._processor.inputs(messages, images, generate=generate)
        if "pixel_values" in inputs and self._model.dtype != torch.float32:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        return inputs

    def _logits(self, inputs: Any, start: int, count: int) -> FloatArray:
        """Logits float32 [count, n_vocab] from which the tokens start, start + 1, ... are chosen."""
        import torch

        forget_positions(self._model)
        with torch.inference_mode():
            logits = self._model(**inputs).logits[0, start - 1 : start - 1 + count]
        rows: FloatArray = logits.float().numpy()
        return rows

    def _check_length(self, inputs: Any, more: int) -> int:
        length = int(inputs["input_ids"].shape[1])
        if length + more > self._context:
            image_tokens = int((inputs["input_ids"] == self._image_token_id).sum())
            raise ContextOverflowError(length + more, self._context, image_tokens)
        return length


def _user(question: str, pictures: int) -> dict[str, Any]:
    places = [{"type": "image"} for _ in range(pictures)]
    return {"role": "user", "content": [*places, {"type": "text", "text": question}]}


def _ids(inputs: Any) -> IntArray:
    ids: IntArray = inputs["input_ids"][0].numpy().astype(np.int64)
    return ids
