"""The checkpoint in transformers, float32: what the bundle has to agree with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm_export.reference.model import load_model
from edge_mllm_export.reference.processor import load_processor
from edge_mllm_export.reference.strips import packed_strip
from edge_mllm_export.reference.tokenizer_choice import declared_tokens

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family
    from edge_mllm_export.families.task import Task
    from edge_mllm_export.reference.probes import Probe


_FURTHER = "deepstack_visual_embeds"
"""Argument of a language model: for each of its first layers the rows [tokens, n_embd] that visual tokens add."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the model's own processor makes of a probe."""

    ids: IntArray
    """int64 [n]"""
    pixels: FloatArray
    """float32 [tiles of all pictures, 3, height, width], or the packed patches of all pictures."""
    tensors: Any
    """The processor's output as the model takes it."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model makes of a probe."""

    inputs: Inputs
    visual: FloatArray
    """Rows of visual tokens float32 [visual tokens, row_width], in the order of the prompt."""
    tokens: IntArray
    """Greedy continuation int64 [m], ending with a stop token or at the limit."""
    logits: FloatArray
    """float32 [m, n_vocab]: row k chose token k."""


class Reference:
    """A model and its processor, loaded by transformers from the same files."""

    def __init__(self, checkpoint: Checkpoint, family: Family, task: Task) -> None:
        self._prompt, self._image = family.prompt(checkpoint), family.image(checkpoint)
        self._patches = family.vision(checkpoint).patches
        decoder = family.decoder(checkpoint)
        self._row_width, self._n_vocab = decoder.row_width, decoder.n_vocab
        self.cache: Any = None
        """What transformers kept of the last answer's keys and values."""
        self.processor = load_processor(checkpoint, family)
        self._model = self._load(checkpoint, task)

    def _load(self, checkpoint: Checkpoint, task: Task) -> Any:
        import torch

        with _quiet():
            return load_model(checkpoint, task.model_class, torch.float32)

    @property
    def markers(self) -> tuple[str, ...]:
        """Declared tokens that may stand in what a user writes: all but those that stand for pictures and the like.

        Those without an embedding are none either: transformers' model stops at them, and a bundle reads them as text.
        """
        taken = {self._prompt.image_token, self._prompt.placeholder, *self.processor.places}
        ids = self.processor.tokenizer.convert_tokens_to_ids
        found = declared_tokens(self.processor.tokenizer)
        return tuple(text for text in found if text not in taken and ids(text) < self._n_vocab)

    def inputs(self, probe: Probe) -> Inputs:
        """Render, tokenise and cut tiles."""
        tensors = self.processor.inputs(probe.messages, [_to_pil(picture) for picture in probe.pictures])
        pixels = self._tiles(tensors, probe) if probe.pictures else np.empty((0, 3, 1, 1), np.float32)
        return Inputs(ids=tensors["input_ids"][0].numpy().astype(np.int64), pixels=pixels, tensors=tensors)

    def _tiles(self, tensors: Any, probe: Probe) -> FloatArray:
        """Tiles of all pictures [tiles, 3, height, width], or packed patches.

        Some processors group tiles by prompt; some group them by picture and fill up with tiles of zeros. Tiles behind
        those of our plan are left out only where they are such.
        """
        pixels, strip = tensors["pixel_values"], packed_strip(tensors, self._patches)
        if strip is not None:
            return strip
        if pixels.ndim == 5 and len(pixels) == len(probe.pictures):
            tiler = self._image.tiler_for(len(probe.pictures))
            counts = [plan_tiles(width, height, tiler).count for width, height in probe.sizes]
            found = zip(pixels.numpy(), counts, strict=True)
            return np.concatenate([tiles if tiles[count:].any() else tiles[:count] for tiles, count in found])
        tiles: FloatArray = (pixels if pixels.ndim == 2 else pixels.flatten(0, -4)).numpy()
        return tiles

    def answer(self, probe: Probe, *, new_tokens: int) -> Answer:
        """Continue greedily, keeping the spliced visual embeddings and every step's logits."""
        import torch

        inputs = self.inputs(probe)
        forget_positions(self._model)
        seen: list[Any] = []
        hook = self._model.get_decoder().register_forward_pre_hook(
            lambda _module, _args, kwargs: seen.append(kwargs), with_kwargs=True
        )
        with torch.inference_mode():
            output = self._model(**inputs.tensors, use_cache=True, logits_to_keep=1)
            hook.remove()
            tokens, logits = self._continue(output, new_tokens)
        spliced = seen[0]["inputs_embeds"][0].numpy()
        further = [rows.numpy() for rows in seen[0].get(_FURTHER) or ()]
        visual = np.concatenate([spliced[inputs.ids == self._prompt.image_token_id], *further], axis=1)
        if not probe.pictures:  # then nothing goes to further layers either
            visual = np.empty((0, self._row_width), np.float32)
        return Answer(inputs=inputs, visual=visual, tokens=tokens, logits=logits)

    def decoder_and_head(self) -> Any:
        """The language model as one module whose parts have the names of a plain causal LM: ``model``, ``lm_head``."""
        import torch

        parts = {"model": self._model.get_decoder(), "lm_head": self._model.get_output_embeddings()}
        return torch.nn.ModuleDict(parts)

    def _continue(self, output: Any, limit: int) -> tuple[IntArray, FloatArray]:
        import torch

        tokens: list[int] = []
        rows: list[FloatArray] = []
        while True:
            rows.append(output.logits[0, -1].numpy())
            tokens.append(int(rows[-1].argmax()))
            self.cache = output.past_key_values
            if len(tokens) == limit or tokens[-1] in self._prompt.stop_token_ids:
                return np.asarray(tokens, np.int64), np.stack(rows)
            output = self._model(
                input_ids=torch.tensor([tokens[-1:]]), past_key_values=output.past_key_values, use_cache=True
            )


def forget_positions(model: Any) -> None:
    """Drop what models with M-RoPE keep of their last picture and would also use for a prompt without one."""
    inner = getattr(model, "model", None)
    if inner is not None and getattr(inner, "rope_deltas", None) is not None:
        inner.rope_deltas = None


def _to_pil(picture: npt.NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(picture)


class _quiet:  # noqa: N801  (a context manager reads as a verb)
    """No progress bars of transformers while a model loads."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._was = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        if self._was:
            logging.enable_progress_bar()
