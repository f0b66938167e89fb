"""The finished bundle, asked the way a user asks it: what is compared with the reference.

Pictures and prompts are read by the session's reader, prefill and decoding are the pipeline's. What differs from a
user's question is handed in through the same doors: pictures that have the reference's embeddings, and a processor of
logits that keeps the answer on the reference's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.conversation import Conversation
from edge_mllm.answer.decoding.cells import CellCache
from edge_mllm.answer.decoding.prefill import Prefill
from edge_mllm.answer.pictures.bundle_picture import PicturePart
from edge_mllm.answer.pictures.encoder import encoded_rows
from edge_mllm.answer.pipeline import Pipeline
from edge_mllm.answer.readers.reader import BundleReader
from edge_mllm.answer.request import Request
from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.decoders.protocol import Tokens
from edge_mllm.prompt.build import PromptIds
from edge_mllm.session.files import open_bundle
from edge_mllm.session.load import load
from edge_mllm.session.session import Model
from edge_mllm.tower.placement import Placement, Provider, place_tower
from edge_mllm.tower.tower import VisionTower
from edge_mllm_export.verify.agreement import CLOSE_CALL, margins
from edge_mllm_export.write.onnx.long_runs import MANY

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import Engine
    from edge_mllm_export.reference.probes import Probe
    from edge_mllm_export.reference.reference import Answer


@dataclass(frozen=True)
class Prepared:
    """A probe, read."""

    messages: Sequence[dict[str, Any]]
    pictures: tuple[PicturePart, ...]
    prompt: PromptIds

    @property
    def pixels(self) -> FloatArray:
        """float32 [tiles of all pictures, 3, height, width], or the packed patches of all pictures."""
        if not self.pictures:
            return np.empty((0, 3, 1, 1), np.float32)
        return np.concatenate([picture.tower_input() for picture in self.pictures])

    def shown(self, visual: FloatArray) -> Conversation:
        """The probe with given embeddings for its pictures, float32 [visual tokens of all of them, row_width]."""
        rows = split_rows(self.prompt, visual)
        parts = [picture.with_rows(part) for picture, part in zip(self.pictures, rows, strict=True)]
        return Conversation(self.messages, parts)


def split_rows(prompt: PromptIds, visual: FloatArray) -> list[FloatArray]:
    """Embeddings of all pictures of a prompt, picture by picture."""
    if not prompt.slots:
        return []
    return np.split(visual, np.cumsum([slot.visual for slot in prompt.slots])[:-1])


class Candidate:
    """A bundle directory, opened the way the runtime opens it."""

    def __init__(self, directory: Path, threads: int) -> None:
        self._bundle = open_bundle(directory)
        self._threads = threads
        self.spec = self._bundle.spec
        self._reader = BundleReader(self._bundle, self.spec.engines[0])

    @cached_property
    def tower(self) -> VisionTower:
        """The vision tower."""
        return VisionTower.of(self._bundle, threads=self._threads)

    def other_tower(self, file: Path) -> VisionTower:
        """A tower that takes the place of the bundle's."""
        return VisionTower.of(self._bundle, threads=self._threads, file=file)

    def qnn_place(self, architecture: str, tiles: int) -> Placement:
        """Where the tower for Hexagon NPUs runs: on this machine's, else simulated.

        Raises:
            NpuError: It cannot run here.
        """
        return place_tower(self._bundle, Provider("qnn", architecture), tiles=tiles)

    def placed_tower(self, place: Placement, tiles: int) -> VisionTower:
        """A tower for NPUs, ``tiles`` a run."""
        return VisionTower.of(self._bundle, threads=self._threads, place=place, tile_batch=tiles)

    def prepare(self, probe: Probe) -> Prepared:
        """Tiles and token ids of a probe."""
        pictures = tuple(self._reader.pictures(probe.pictures, ImageBudget()))
        return Prepared(probe.messages, pictures, self._reader.prompt(probe.messages, pictures))

    def encode(self, prepared: Prepared, tower: VisionTower | None = None) -> FloatArray:
        """Rows of all pictures, float32 [visual tokens, row_width], by the bundle's tower or another one."""
        if not prepared.pictures:
            return np.empty((0, self.spec.decoder.row_width), np.float32)
        return np.concatenate([encoded_rows(tower or self.tower, picture) for picture in prepared.pictures])

    def text(self, tokens: Sequence[int]) -> str:
        """An answer's text, without special tokens."""
        return str(self._reader.tokenizer.decode([*tokens]))

    def model(self, engine: Engine, *, n_ctx: int, exact: bool, prompt_weights: bool = True) -> Model:
        """Load it.

        Args:
            engine: Which decoder.
            n_ctx: Most cells.
            exact: Ask llama.cpp for a float32 cache, as ONNX Runtime's always is.
            prompt_weights: Use them where there are any.
        """
        return load(
            self._bundle.path,
            engine=engine,
            threads=self._threads,
            n_ctx=n_ctx,
            kv_type="f32" if exact and engine == "gguf" else None,
            prompt_weights=prompt_weights,
            provider="cpu",  # towers for NPUs are compared by themselves
            check_hashes=False,
        )


@dataclass(frozen=True)
class Run:
    """A decoder's way along the reference's continuation."""

    logits: FloatArray
    """float32 [m, n_vocab], each row with the reference's tokens before it."""
    length: int
    first_difference: int | None
    """Of our own greedy continuation; None where it is the reference's."""
    forced: int
    """Close calls before it that were decided the reference's way."""


class Guide:
    """A processor of logits that keeps an answer on given tokens, and sees where it would have left them.

    Args:
        answer: The reference's.
    """

    def __init__(self, answer: Answer) -> None:
        self._tokens, self._close = answer.tokens, margins(answer.logits) < CLOSE_CALL
        self._rows: list[FloatArray] = []
        self._forced = 0
        self._difference: int | None = None

    def __call__(self, logits: FloatArray, generated: Sequence[int]) -> FloatArray:
        """Keep the row; leave the reference's token alone."""
        place = len(generated)
        self._rows.append(logits.copy())
        if self._difference is None and int(logits.argmax()) != self._tokens[place]:
            if self._close[place]:
                self._forced += 1
            else:
                self._difference = place
        held = np.full_like(logits, -np.inf)
        held[self._tokens[place]] = 0.0
        return held

    @property
    def run(self) -> Run:
        """What was seen."""
        return Run(np.stack(self._rows), len(self._tokens), self._difference, self._forced)


def follow(pipeline: Pipeline, prepared: Prepared, visual: FloatArray, answer: Answer) -> Run:
    """Answer a probe along the reference's continuation.

    Args:
        pipeline: The model's.
        prepared: The probe.
        visual: float32 [visual tokens, row_width]: the reference's embeddings or ours.
        answer: The reference's continuation and logits.
    """
    guide = Guide(answer)
    request = Request(max_new_tokens=len(answer.tokens), ignore_eos=True, processors=(guide,))
    for _ in pipeline.respond(prepared.shown(visual), request, pipeline.start_watch()):
        pass
    return guide.run


def prefilled(cells: CellCache, prepared: Prepared, visual: FloatArray) -> FloatArray:
    """Put a probe into a decoder's cache; logits float32 [n_vocab] of the answer's first token.

    Args:
        cells: The decoder; the cells of pictures are kept for the next probe about them.
        prepared: The probe.
        visual: float32 [visual tokens, row_width].
    """
    shown = prepared.shown(visual).pictures
    begun = Prefill(cells, prepared.prompt, [picture.key for picture in shown])
    return begun.fill(split_rows(prepared.prompt, visual), [picture.token_grid for picture in shown])


def along(cells: CellCache, prepared: Prepared, visual: FloatArray, tokens: IntArray) -> FloatArray:
    """Logits float32 [m, n_vocab] along a given answer int64 [m], each row with the tokens before it.

    The answer is computed by a few tokens at once, not one by one as a user's is: for measurements over thousands of
    positions. They are few enough to read a cache in 8 bits as single ones do. Arguments as :func:`prefilled`.
    """
    first, before, few = prefilled(cells, prepared, visual), tokens[:-1], MANY - 1
    parts = (Tokens(before[start : start + few]) for start in range(0, len(before), few))
    return np.concatenate([first[None], *(cells.decoder.prefill([part], all_logits=True) for part in parts)])
