"""Search of engine, threads and chunk size, each stage measured for itself, within a time limit.

A question's time is the sum of its stages, so stages are measured one by one instead of whole answers: the tower on one
tile, the decoder over a few hundred prompt tokens, and some tokens of an answer. The shortest of a few runs counts,
because whatever else the machine does only adds time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_mllm.bundle import Engine
from edge_mllm.bundle_files import OpenBundle
from edge_mllm.decoders.llama_library import library
from edge_mllm.decoders.protocol import Decoder, Tokens
from edge_mllm.decoders.select import open_decoder
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import EngineError, ExtraMissingError
from edge_mllm.image import load_rgb
from edge_mllm.tiling import cut_tiles
from edge_mllm.vision import VisionTower

DEFAULT_CHUNK = 512
CHUNKS = (128, 256, 1024, 2048)
"""Tried beside the default."""
_RUNS = 3
_STEPS = 12
"""Tokens of the answer that are timed."""
_WORTH = 0.97
"""Another setting must take at most this share of the default's time: less is noise."""
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The question that is to be answered soon."""

    tiles: int
    prompt_tokens: int
    answer_tokens: int = 64


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One combination, measured."""

    engine: Engine
    threads: int
    chunk: int
    tile_s: float
    token_s: float
    """Of the prompt."""
    step_s: float
    """Of the answer."""
    seconds: float
    """Of the whole workload."""


class Stages(Protocol):
    """What the search measures; seconds of one tile, one prompt token, one token of an answer."""

    def tile(self, threads: int) -> float:
        """The tower."""
        ...

    def decode(self, engine: Engine, threads: int, chunk: int) -> tuple[float, float]:
        """Prompt token and answer token."""
        ...


@dataclass(frozen=True)
class Found:
    """The winner beside the defaults, and everything that was tried."""

    best: Trial
    default: Trial
    trials: tuple[Trial, ...]
    complete: bool
    """False when time ran out first."""


def search(
    stages: Stages,
    engines: Sequence[Engine],
    threads: Sequence[int],
    work: Workload,
    *,
    limit_s: float = 110.0,
    progress: Progress = lambda _: None,
) -> Found:
    """Try every engine with every number of threads, then chunk sizes with the best.

    Args:
        stages: Measures.
        engines: To choose from, the default one first.
        threads: To choose from, the default number first.
        work: What is to be fast.
        limit_s: No measurement begins after this time.
        progress: Told before every measurement.
    """
    deadline = time.perf_counter() + limit_s
    trials: list[Trial] = []
    tiles: dict[int, float] = {}

    def measure(engine: Engine, count: int, chunk: int) -> None:
        progress(f"{engine}, {count} threads, {chunk} tokens at once")
        if count not in tiles:
            tiles[count] = stages.tile(count) if work.tiles else 0.0
        token, step = stages.decode(engine, count, chunk)
        whole = tiles[count] * work.tiles + token * work.prompt_tokens + step * work.answer_tokens
        trials.append(
            Trial(
                engine=engine,
                threads=count,
                chunk=chunk,
                tile_s=tiles[count],
                token_s=token,
                step_s=step,
                seconds=whole,
            )
        )

    plan = [(engine, count, DEFAULT_CHUNK) for count in threads for engine in engines]
    complete = _run(plan, measure, deadline, first=True)
    leader = _best(trials)
    chunks = [(leader.engine, leader.threads, chunk) for chunk in CHUNKS if chunk <= 2 * work.prompt_tokens]
    complete = _run(chunks, measure, deadline, first=False) and complete
    return Found(_best(trials), trials[0], tuple(trials), complete)


def _run(
    plan: Sequence[tuple[Engine, int, int]],
    measure: Callable[[Engine, int, int], None],
    deadline: float,
    *,
    first: bool,
) -> bool:
    """Measure until time is up; the defaults are measured in any case."""
    for number, each in enumerate(plan):
        if time.perf_counter() > deadline and not (first and number == 0):
            return False
        measure(*each)
    return True


def _best(trials: Sequence[Trial]) -> Trial:
    """The fastest, or the defaults where nothing is clearly faster."""
    fastest = min(trials, key=lambda trial: trial.seconds)
    return fastest if fastest.seconds <= _WORTH * trials[0].seconds else trials[0]


def thread_counts(default: int, usable: int) -> list[int]:
    """Numbers of threads worth trying: the default, half of it, one less, and all cores."""
    wanted = (default, usable, max(1, default - 1), max(1, default // 2))
    return list(dict.fromkeys(count for count in wanted if count <= usable))


class BundleStages:
    """Measures a bundle's own tower and decoders."""

    def __init__(self, bundle: OpenBundle, picture: bytes, prompt_tokens: int) -> None:
        """Cut one picture; nothing is loaded.

        Args:
            bundle: The model.
            picture: An image file; one tile of it is encoded.
            prompt_tokens: Tokens of the prompt that prefill is measured with.
        """
        self._bundle = bundle
        prepared = cut_tiles(load_rgb(picture), bundle.spec.image, bundle.spec.vision)
        self._pixels, self._grid = prepared.pixels, prepared.plan.token_grid
        if bundle.spec.vision.patches is None:
            self._pixels = self._pixels[:1]
        stop = bundle.spec.decoder.n_vocab
        self._ids = np.random.default_rng(0).integers(0, stop, prompt_tokens).astype(np.int64)

    def tile(self, threads: int) -> float:
        """Seconds of the tower for one tile, or for the whole picture where it takes any size."""
        spec = self._bundle.spec
        tower = VisionTower(self._bundle.file("vision"), spec.vision, spec.decoder.n_embd, threads=threads)
        try:
            tower.encode(self._pixels, token_grid=self._grid)
            return min(tower.encode(self._pixels, token_grid=self._grid).seconds for _ in range(_RUNS))
        finally:
            tower.close()

    def decode(self, engine: Engine, threads: int, chunk: int) -> tuple[float, float]:
        """Seconds of one prompt token and of one token of the answer."""
        settings = DecoderSettings(threads=threads, chunk=chunk)
        decoder = open_decoder(self._bundle, engine, settings)
        try:
            decoder.reserve(len(self._ids) + _STEPS)
            return self._timed(decoder)
        finally:
            decoder.close()

    def _timed(self, decoder: Decoder) -> tuple[float, float]:
        prefill, steps = [], []
        for number in range(_RUNS):
            decoder.truncate(0)
            start = time.perf_counter()
            decoder.prefill([Tokens(self._ids)])
            between = time.perf_counter()
            for token in self._ids[:_STEPS]:
                decoder.step(int(token))
            if number:  # the first pass touches memory for the first time
                prefill.append((between - start) / len(self._ids))
                steps.append((time.perf_counter() - between) / _STEPS)
        return min(prefill), min(steps)


def usable_engines(bundle: OpenBundle) -> list[Engine]:
    """Engines of the bundle whose library is installed, the default one first."""
    return list(_usable(bundle))


def _usable(bundle: OpenBundle) -> Iterator[Engine]:
    for engine in bundle.spec.engines:
        try:
            if engine == "gguf":
                library()
        except (ExtraMissingError, EngineError):
            continue
        yield engine


def starting_workload(bundle: OpenBundle, size: tuple[int, int] = (1024, 768)) -> Workload:
    """A photo and a short question, within the model's context."""
    from edge_mllm.tile_plan import plan_tiles

    plan = plan_tiles(*size, bundle.spec.image.tiler)
    tokens = plan.tokens(bundle.spec.vision.tokens_per_tile) + 48
    runs = 1 if bundle.spec.vision.patches is not None else plan.count
    return Workload(tiles=runs, prompt_tokens=min(tokens, bundle.spec.decoder.context_length - 64))


def sample(size: tuple[int, int] = (1024, 768)) -> bytes:
    """The picture that is encoded."""
    from edge_mllm.bench.cases import sample_picture

    return sample_picture(*size, 0)


def default_bundle(path: Path | None) -> Path:
    """The given bundle, or the starter."""
    from edge_mllm.session import starter_bundle

    return starter_bundle() if path is None else path
