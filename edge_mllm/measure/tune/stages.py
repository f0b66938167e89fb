"""The stages of a model's own tower and decoders, timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_mllm.answer.components import Components
from edge_mllm.bundle.files import OpenBundle
from edge_mllm.bundle.published.directory import PublishedDirectory, is_published
from edge_mllm.bundle.published.files import decoder_files
from edge_mllm.decoders.protocol import Decoder, Tokens
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import EngineError, ExtraMissingError
from edge_mllm.machine.llama import library
from edge_mllm.machine.memory import available_bytes
from edge_mllm.measure.bench.cases import sample_picture
from edge_mllm.measure.tune.search import Variant, Workload
from edge_mllm.picture.image import load_rgb
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm.picture.tiling import cut_tiles
from edge_mllm.session.files import open_files
from edge_mllm.session.open import open_components
from edge_mllm.session.opening import Opening
from edge_mllm.tower.cache import VisionCache
from edge_mllm.tower.engines import TowerEngine, usable_engines
from edge_mllm.tower.placement import read_provider

_RUNS = 3
_ENOUGH_S = 3.0
"""A stage is not run again when its runs took this long together."""
_STEPS = 12
"""Tokens of the answer that are timed."""
_PROMPT = 512
"""Most tokens of the prompt that is timed."""
_SIZE = (1024, 768)


class ModelStages:
    """Measures the parts of one model on disk. The shortest of a few runs counts: other programs only add time."""

    def __init__(self, path: Path, work: Workload) -> None:
        """Cut one picture; nothing is loaded.

        Args:
            path: A bundle or a directory of published ONNX files.
            work: What is to be fast.
        """
        self._path = path
        spec = open_files(path, check_hashes=False).spec
        prepared = cut_tiles(load_rgb(sample_picture(*_SIZE, 0)), spec.image, spec.vision)
        self._pixels, self._grids = prepared.pixels, prepared.plan.grids
        self._any_size = spec.vision.patches is not None
        tokens = min(work.prompt_tokens, _PROMPT)
        self.towers: tuple[TowerEngine, ...] = ("ort",)
        if not is_published(path):
            self.towers = usable_engines(spec.parts["vision"].precision)
        self._ids = np.random.default_rng(0).integers(0, spec.decoder.n_vocab, tokens).astype(np.int64)

    def tile(self, tower: TowerEngine, threads: int, batch: int) -> float:
        """Seconds of the tower for one tile, or for the whole picture where it takes any size."""
        pixels = self._pixels if self._any_size else self._pixels[:batch]
        settings = DecoderSettings(threads=threads)
        opened = self._open(
            Variant("onnx"), settings, tile_batch=batch, lazy=True, provider=read_provider(None, tower)
        ).tower
        try:
            opened.load()
            seconds = _shortest(lambda: opened.encode(pixels, grids=self._grids).seconds)
        finally:
            opened.close()
        return seconds if self._any_size else seconds / len(pixels)

    def decode(self, variant: Variant, threads: int, chunk: int) -> tuple[float, float]:
        """Seconds of one prompt token and of one token of the answer.

        Raises:
            EngineError: The engine does not run this decoder.
        """
        settings = DecoderSettings(threads=threads, chunk=chunk, kv_type=variant.kv_type)
        decoder = self._open(variant, settings).decoder
        try:
            decoder.reserve(len(self._ids) + _STEPS)
            steps: list[float] = []
            prefill = _shortest(lambda: self._once(decoder, steps))
            return prefill / len(self._ids), min(steps)
        finally:
            decoder.close()

    def _once(self, decoder: Decoder, steps: list[float]) -> float:
        decoder.truncate(0)
        start = time.perf_counter()
        decoder.prefill([Tokens(self._ids)])
        between = time.perf_counter()
        for token in self._ids[:_STEPS]:
            decoder.step(int(token))
        steps.append((time.perf_counter() - between) / _STEPS)
        return between - start

    def _open(self, variant: Variant, settings: DecoderSettings, *, lazy: bool = False, **tower: Any) -> Components:
        precision = None if variant.precision is None else f"decoder_model_merged={variant.precision}"
        opening = Opening(
            path=self._path,
            settings=settings,
            cache=VisionCache(max_bytes=0),
            engine=variant.engine if not lazy else None,
            check_hashes=False,
            low_memory=lazy,
            precision=precision,
            **tower,
        )
        return open_components(opening)


def _shortest(run: Callable[[], float]) -> float:
    """The shortest of some runs, the first of which touches memory for the first time and counts when it is alone."""
    first = run()
    spent = first
    seconds: list[float] = []
    while len(seconds) < _RUNS and spent < _ENOUGH_S:
        seconds.append(run())
        spent += seconds[-1]
    return min(seconds, default=first)


def usable_variants(path: Path) -> list[Variant]:
    """Decoders of a model whose library is installed and which fit the memory, the default one first."""
    files = open_files(path, check_hashes=False)
    if isinstance(files, PublishedDirectory):
        found = decoder_files(path)
        sizes = {name: sum(file.stat().st_size for file in (each.path, *each.data)) for name, each in found.items()}
        room = (available_bytes() or 0) // 2
        default = next(iter(found))
        return [Variant("onnx", name) for name in found if name == default or sizes[name] <= room]
    return list(_usable(files))


def _usable(bundle: OpenBundle) -> Iterator[Variant]:
    for engine in bundle.spec.engines:
        try:
            if engine == "gguf":
                library()
        except (ExtraMissingError, EngineError):
            continue
        yield Variant(engine)
        if engine == "gguf":  # without flash attention then: prefill is slower, decoding after a long prompt faster
            yield Variant(engine, kv_type="f32")


def starting_workload(path: Path) -> Workload:
    """A photo and a short question, within the model's context."""
    spec = open_files(path, check_hashes=False).spec
    plan = plan_tiles(*_SIZE, spec.image.tiler)
    tokens = plan.tokens(spec.vision.tokens_per_tile) + 48
    runs = 1 if spec.vision.patches is not None else plan.count
    return Workload(tiles=runs, prompt_tokens=min(tokens, spec.decoder.context_length - 64))
