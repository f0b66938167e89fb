"""llama.cpp's own libmtmd on this project's GGUF decoder and mmproj: the variant is the mmproj's precision.

It works as ``llama-mtmd-cli`` does (chunk by chunk, encode then decode), through the low-level bindings of
llama-cpp-python, with greedy sampling outside the measured library. A second question keeps the cells up to the end of
the picture, as llama-server does with its prompt cache; llama-cpp-python's own chat handlers clear the cache instead.
"""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from prompts import chat_prompt
from protocol import Job, Question, Reply, serve

from edge_mllm.machine.fingerprint import package_versions
from edge_mllm.machine.llama import library, load_model
from edge_mllm.picture.image import load_rgb

MARKER = "<__media__>"
_IMAGE = 1
_BATCH, _UBATCH = 2048, 512
"""llama-mtmd-cli's defaults."""


def mmproj_file(bundle: str, precision: str) -> Path:
    """Where the tower of a precision lies beside a bundle."""
    return Path(bundle).parent / f"mmproj-{precision}.gguf"


class LibMtmd:
    """Decoder and tower, loaded."""

    def __init__(self, job: Job) -> None:
        from llama_cpp import mtmd_cpp

        self.llama, self.mtmd = library().api, mtmd_cpp
        quiet = self.llama.llama_log_callback(lambda _level, _text, _data: None)
        self._quiet = quiet
        mtmd_cpp.mtmd_log_set(quiet, ctypes.c_void_p(0))
        mtmd_cpp.mtmd_helper_log_set(quiet, ctypes.c_void_p(0))
        parts = json.loads((Path(job.bundle) / "bundle.json").read_text())["parts"]
        decoder = Path(job.bundle) / parts["decoder_gguf"]["file"]
        tower = mmproj_file(job.bundle, job.variant)
        self.files = [str(decoder), str(tower)]
        self.about = {
            "versions": package_versions(),
            "precision": {"decoder": parts["decoder_gguf"]["precision"], "tower": job.variant},
        }
        self.bundle = job.bundle
        self._loaded = load_model(decoder, mmap=True)
        self.model = self._loaded.address
        self.context = self._make_context(job)
        self.vocab = self.llama.llama_model_get_vocab(self.model)
        self.n_vocab = self.llama.llama_vocab_n_tokens(self.vocab)
        options = mtmd_cpp.mtmd_context_params_default()
        options.use_gpu, options.n_threads, options.print_timings = False, job.threads, False
        self.tower = mtmd_cpp.mtmd_init_from_file(str(tower).encode(), self.model, options)
        if not self.tower:
            raise RuntimeError(f"libmtmd does not load {tower.name}")
        self.kept: list[tuple[int, int]] = []
        """Position and tokens after each chunk of the last prompt, up to its last picture."""

    def answer(self, question: Question) -> Reply:
        """Answer a question about a new picture."""
        start = time.perf_counter()
        picture = load_rgb(Path(str(question.picture)))
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)
        return self._run(question, picture, start, skip=0)

    def again(self, question: Question) -> Reply:
        """Keep everything up to the last picture chunk; the text behind it is computed."""
        start = time.perf_counter()
        position = self.kept[-1][0]
        memory = self.llama.llama_get_memory(self.context)
        if not self.llama.llama_memory_seq_rm(memory, 0, position, -1):  # a recurrent state cannot be cut back
            self.llama.llama_memory_clear(memory, True)
            return self._run(question, self._picture, start, skip=0)
        return self._run(question, self._picture, start, skip=len(self.kept))

    def _run(self, question: Question, picture: Any, start: float, *, skip: int) -> Reply:
        self._picture = picture
        vision = prefill = 0.0
        prompt = chat_prompt(self.bundle, question.text, MARKER)
        with self._chunks(prompt, picture) as chunks:
            counts = [self.mtmd.mtmd_input_chunk_get_n_tokens(chunk) for chunk in chunks]
            kinds = [self.mtmd.mtmd_input_chunk_get_type(chunk) == _IMAGE for chunk in chunks]
            last_picture = max(index for index, picture_chunk in enumerate(kinds) if picture_chunk)
            position = self.kept[-1][0] if skip else 0
            reused = self.kept[-1][1] if skip else 0
            ready = time.perf_counter()
            places = []
            for index, chunk in enumerate(chunks[skip:], skip):
                encode, decode, position = self._advance(chunk, position, last=index == len(chunks) - 1)
                vision, prefill = vision + encode, prefill + decode
                places.append((position, sum(counts[: index + 1])))
            if not skip:
                self.kept = places[: last_picture + 1]
        token = self._best()
        first = time.perf_counter()
        for _ in range(question.answer_tokens - 1):
            token = self._step(token)
        return Reply(
            first_token_s=first - start,
            prefill_s=prefill,
            decode_s=time.perf_counter() - first,
            prompt_tokens=sum(counts),
            visual_tokens=sum(n for n, picture_chunk in zip(counts, kinds, strict=True) if picture_chunk),
            answer_tokens=question.answer_tokens,
            vision_s=vision + (ready - start),
            reused_tokens=reused,
        )

    def _make_context(self, job: Job) -> Any:
        parameters = self.llama.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = job.context, _BATCH, _UBATCH
        parameters.n_threads = parameters.n_threads_batch = job.threads
        context = self.llama.llama_init_from_model(self.model, parameters)
        if not context:
            raise RuntimeError("llama.cpp makes no context")
        return context

    @contextmanager
    def _chunks(self, prompt: str, picture: Any) -> Iterator[list[Any]]:
        data = np.ascontiguousarray(picture, np.uint8)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = self.mtmd.mtmd_bitmap_init(data.shape[1], data.shape[0], pointer)
        found = self.mtmd.mtmd_input_chunks_init()
        text = self.mtmd.mtmd_input_text(prompt.encode(), len(prompt.encode()), False, True)
        bitmaps = (self.mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        try:
            if self.mtmd.mtmd_tokenize(self.tower, found, ctypes.byref(text), bitmaps, 1) != 0:
                raise RuntimeError("libmtmd does not take the prompt")
            count = self.mtmd.mtmd_input_chunks_size(found)
            yield [self.mtmd.mtmd_input_chunks_get(found, i) for i in range(count)]
        finally:
            self.mtmd.mtmd_input_chunks_free(found)
            self.mtmd.mtmd_bitmap_free(bitmap)

    def _advance(self, chunk: Any, position: int, *, last: bool) -> tuple[float, float, int]:
        """Seconds of encoding, seconds of decoding, and the position behind the chunk."""
        after = self.llama.llama_pos(position)
        start = time.perf_counter()
        encoded = start
        if self.mtmd.mtmd_input_chunk_get_type(chunk) == _IMAGE:
            status = self.mtmd.mtmd_encode_chunk(self.tower, chunk)
            encoded = time.perf_counter()
            rows = self.mtmd.mtmd_get_output_embd(self.tower)
            nobody = self.mtmd.mtmd_helper_post_decode_callback()
            status |= self.mtmd.mtmd_helper_decode_image_chunk(
                self.tower, self.context, chunk, rows, position, 0, _BATCH, ctypes.byref(after), nobody, None
            )
        else:
            status = self.mtmd.mtmd_helper_eval_chunk_single(
                self.tower, self.context, chunk, position, 0, _BATCH, last, ctypes.byref(after)
            )
        if status != 0:
            raise RuntimeError(f"libmtmd failed on a chunk ({status})")
        return encoded - start, time.perf_counter() - encoded, int(after.value)

    def _step(self, token: int) -> int:
        one = (ctypes.c_int32 * 1)(token)
        if self.llama.llama_decode(self.context, self.llama.llama_batch_get_one(one, 1)) != 0:
            raise RuntimeError("llama.cpp failed to decode")
        return self._best()

    def _best(self) -> int:
        rows = self.llama.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(rows, (self.n_vocab,)).argmax())


if __name__ == "__main__":
    serve(LibMtmd, lambda _: None)
