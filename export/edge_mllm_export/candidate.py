"""The finished bundle, run by the runtime's own stages: what is compared with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm.bundle_files import OpenBundle, open_bundle
from edge_mllm.chat_template import ChatTemplate
from edge_mllm.decoders.protocol import Decoder, FloatArray, IntArray, Tokens
from edge_mllm.decoders.select import open_decoder
from edge_mllm.decoders.settings import DecoderSettings, KVType, PromptWeights
from edge_mllm.prompt import PromptIds, build_prompt
from edge_mllm.splice import splice
from edge_mllm.stitching import join_tiles
from edge_mllm.tiling import Preprocessed, cut_tiles
from edge_mllm.vision import VisionTower
from edge_mllm_export.agreement import CLOSE_CALL, margins

if TYPE_CHECKING:
    from edge_mllm.bundle import Engine
    from edge_mllm_export.probes import Probe
    from edge_mllm_export.reference import Answer


@dataclass(frozen=True)
class Prepared:
    """A probe, ready for the decoder."""

    prompt: PromptIds
    pictures: tuple[Preprocessed, ...]

    @property
    def pixels(self) -> FloatArray:
        """float32 [tiles of all pictures, 3, height, width], or the packed patches of all pictures."""
        if not self.pictures:
            return np.empty((0, 3, 1, 1), np.float32)
        return np.concatenate([picture.pixels for picture in self.pictures])


class Candidate:
    """A bundle directory, opened the way the runtime opens it."""

    def __init__(self, directory: Path, threads: int) -> None:
        self._bundle: OpenBundle = open_bundle(directory)
        self._threads = threads
        self.spec = self._bundle.spec
        self._tokenizer = self._bundle.tokenizer()
        self._template = ChatTemplate(self._bundle.chat_template())

    @cached_property
    def tower(self) -> VisionTower:
        """The vision tower."""
        return VisionTower.of(self._bundle, threads=self._threads)

    def other_tower(self, file: Path) -> VisionTower:
        """A tower that takes the place of the bundle's."""
        return VisionTower.of(self._bundle, threads=self._threads, file=file)

    def prepare(self, probe: Probe) -> Prepared:
        """Tiles and token ids of a probe."""
        image, vision = self.spec.image, self.spec.vision
        tiler = image.tiler_for(len(probe.pictures))
        pictures = tuple(cut_tiles(picture, image, vision, tiler=tiler) for picture in probe.pictures)
        content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": probe.prompt}]
        plans = [picture.plan for picture in pictures]
        messages = [{"role": "user", "content": content}]
        return Prepared(build_prompt(messages, plans, self.spec, self._tokenizer, self._template), pictures)

    def encode(self, prepared: Prepared, tower: VisionTower | None = None) -> FloatArray:
        """Visual embeddings of all pictures, float32 [visual tokens, n_embd], by the bundle's tower or another one."""
        if not prepared.pictures:
            return np.empty((0, self.spec.decoder.n_embd), np.float32)
        tower = tower or self.tower
        return np.concatenate([_rows(tower, item) for item in prepared.pictures])

    def text(self, tokens: Sequence[int]) -> str:
        """An answer's text, without special tokens."""
        return str(self._tokenizer.decode([*tokens]))

    def decoder(self, engine: Engine, *, n_ctx: int, exact: bool, prompt_weights: bool = True) -> Decoder:
        """Open a decoder.

        Args:
            engine: Which one.
            n_ctx: Most cells.
            exact: Ask llama.cpp for a float32 cache, as ONNX Runtime's always is.
            prompt_weights: Use them where there are any.
        """
        kv_type: KVType | None = "f32" if exact and engine == "gguf" else None
        used: PromptWeights = "keep" if prompt_weights else "off"
        settings = DecoderSettings(threads=self._threads, n_ctx=n_ctx, kv_type=kv_type, prompt_weights=used)
        return open_decoder(self._bundle, engine, settings)


def _rows(tower: VisionTower, picture: Preprocessed) -> FloatArray:
    encoded = tower.encode(picture.pixels, token_grid=picture.plan.token_grid)
    return join_tiles(encoded.embeddings, picture.plan, encoded.newline)


@dataclass(frozen=True)
class Run:
    """A decoder's way along the reference's continuation."""

    logits: FloatArray
    """float32 [m, n_vocab], each row with the reference's tokens before it."""
    length: int
    first_difference: int | None
    """Of our own greedy continuation; None where it is the reference's."""
    forced: int


def follow(decoder: Decoder, prepared: Prepared, visual: FloatArray, answer: Answer) -> Run:
    """Prefill a prompt, continue greedily until the first difference, then score the reference's whole continuation.

    Args:
        decoder: Its cache is emptied first.
        prepared: The prompt.
        visual: float32 [visual tokens, n_embd]: the reference's embeddings or ours.
        answer: The reference's continuation and logits.
    """
    first = prefilled(decoder, prepared, visual)
    start = decoder.n_past
    difference, forced = _continue_greedily(decoder, first, answer)
    decoder.truncate(start)
    return Run(_along(decoder, first, answer.tokens), len(answer.tokens), difference, forced)


def prefilled(decoder: Decoder, prepared: Prepared, visual: FloatArray) -> FloatArray:
    """Empty the cache and put a prompt into it; logits float32 [n_vocab] of the answer's first token."""
    decoder.truncate(0)
    per_picture = np.split(visual, np.cumsum([slot.visual for slot in prepared.prompt.slots])[:-1])
    rows: Sequence[FloatArray] = per_picture if prepared.prompt.slots else []
    grids = [picture.plan.token_grid for picture in prepared.pictures]
    return decoder.prefill(splice(prepared.prompt, rows, decoder.n_embd, grids))


def teacher_forced(decoder: Decoder, prepared: Prepared, visual: FloatArray, tokens: IntArray) -> FloatArray:
    """Logits float32 [m, n_vocab] along a given answer int64 [m], each row with the tokens before it."""
    return _along(decoder, prefilled(decoder, prepared, visual), tokens)


def _along(decoder: Decoder, first: FloatArray, tokens: IntArray) -> FloatArray:
    if len(tokens) < 2:
        return first[None]
    return np.concatenate([first[None], decoder.prefill([Tokens(tokens[:-1])], all_logits=True)])


def _continue_greedily(decoder: Decoder, logits: FloatArray, answer: Answer) -> tuple[int | None, int]:
    """First difference from the reference's tokens, and how many close calls were decided the reference's way."""
    close = margins(answer.logits) < CLOSE_CALL
    forced = 0
    for position, token in enumerate(answer.tokens.tolist()):
        if int(logits.argmax()) != token:
            if not close[position]:
                return position, forced
            forced += 1
        if position + 1 < len(answer.tokens):
            logits = decoder.step(token)
    return None, forced
