"""Search of decoder, tower library, threads, chunk size and tile batch, stage by stage, within a time limit.

A question's time is the sum of its stages, so stages are measured one by one instead of whole answers: the tower on
some tiles, the decoder over a few hundred prompt tokens, and some tokens of an answer. One setting is searched after
the other, with the best so far for the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edge_mllm.bundle.spec import Engine
from edge_mllm.decoders.settings import KVType
from edge_mllm.errors import EdgeMLLMError
from edge_mllm.tower.engines import TowerEngine

DEFAULT_CHUNK = 512
CHUNKS = (128, 256, 1024, 2048)
"""Tried beside the default."""
TILE_BATCHES = (2, 4)
"""Tried beside one tile at a time."""
_WORTH = 0.97
"""Another setting must take at most this share of the default's time: less is noise."""
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The question that is to be answered soon."""

    tiles: int
    prompt_tokens: int
    answer_tokens: int = 64


@dataclass(frozen=True)
class Variant:
    """One of the decoders that are there."""

    engine: Engine
    precision: str | None = None
    """Of the decoder of a published directory that has several; None where there is no choice."""
    kv_type: KVType | None = None
    """Precision of its cache; None is the engine's own."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.engine, self.precision, self.kv_type and f"cache {self.kv_type}")))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One combination."""

    variant: Variant
    threads: int
    chunk: int = DEFAULT_CHUNK
    tile_batch: int = 1
    tower: TowerEngine = "ort"

    def __str__(self) -> str:
        counts = f"{self.threads} threads, {self.chunk} tokens and {self.tile_batch} tiles at once"
        return f"{self.variant}, tower on {self.tower}, {counts}"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One combination, measured."""

    settings: Settings
    tile_s: float
    token_s: float
    """Of the prompt."""
    step_s: float
    """Of the answer."""
    seconds: float
    """Of the whole workload."""


class Stages(Protocol):
    """What the search measures; seconds of one tile, one prompt token, one token of an answer."""

    @property
    def towers(self) -> Sequence[TowerEngine]:
        """Libraries that can run the tower, the default one first."""
        ...

    def tile(self, tower: TowerEngine, threads: int, batch: int) -> float:
        """The tower.

        Raises:
            EdgeMLLMError: The library does not run it.
        """
        ...

    def decode(self, variant: Variant, threads: int, chunk: int) -> tuple[float, float]:
        """Prompt token and answer token.

        Raises:
            EdgeMLLMError: The engine does not run this decoder.
        """
        ...


@dataclass(frozen=True)
class Found:
    """The winner beside the defaults, and everything that was tried."""

    best: Trial
    default: Trial
    trials: tuple[Trial, ...]
    refused: tuple[str, ...]
    """Decoders and tower libraries that do not run, with the reason."""
    complete: bool
    """False when time ran out first."""


def search(
    stages: Stages,
    variants: Sequence[Variant],
    threads: Sequence[int],
    work: Workload,
    *,
    limit_s: float = 110.0,
    progress: Progress = lambda _: None,
) -> Found:
    """Try every decoder, then tower libraries, numbers of threads, chunk sizes and tile batches with the best.

    Args:
        stages: Measures.
        variants: Decoders to choose from, the default one first.
        threads: To choose from, the default number first.
        work: What is to be fast.
        limit_s: No measurement begins when the longest one so far would end after this time.
        progress: Told before every measurement.

    Raises:
        EdgeMLLMError: The default decoder or tower does not run.
    """
    trials = _Trials(stages, work, limit_s, progress)
    trials.run(Settings(variant=variant, threads=threads[0]) for variant in variants)
    leader = trials.best().settings
    if work.tiles:
        trials.run(replace(leader, tower=tower) for tower in stages.towers[1:])
    leader = trials.best().settings
    trials.run(replace(leader, threads=count) for count in threads[1:])
    leader = trials.best().settings
    trials.run(replace(leader, chunk=chunk) for chunk in CHUNKS if chunk <= 2 * work.prompt_tokens)
    leader = trials.best().settings
    trials.run(replace(leader, tile_batch=batch) for batch in TILE_BATCHES if batch <= work.tiles)
    return Found(trials.best(), trials.done[0], tuple(trials.done), tuple(trials.refused), trials.complete)


class _Trials:
    """Measures combinations while there is time; a stage with the same settings is measured once."""

    def __init__(self, stages: Stages, work: Workload, limit_s: float, progress: Progress) -> None:
        self._stages, self._work, self._progress = stages, work, progress
        self._deadline, self._longest = time.perf_counter() + limit_s, 0.0
        self._tiles: dict[tuple[TowerEngine, int, int], float] = {}
        self._decodes: dict[tuple[Variant, int, int], tuple[float, float]] = {}
        self.done: list[Trial] = []
        self.refused: list[str] = []
        self.complete = True

    def run(self, plan: Iterable[Settings]) -> None:
        """Measure until time is up; the defaults, which come first, in any case."""
        for settings in plan:
            start = time.perf_counter()
            if self.done and start + self._longest > self._deadline:
                self.complete = False
                return
            self._progress(str(settings))
            try:
                self.done.append(self._measure(settings))
            except EdgeMLLMError as error:
                if not self.done:
                    raise
                self.refused.append(f"{self._culprit(settings)}: {error}")
            self._longest = max(self._longest, time.perf_counter() - start)

    def best(self) -> Trial:
        """The fastest, or the defaults where nothing is clearly faster."""
        fastest = min(self.done, key=lambda trial: trial.seconds)
        return fastest if fastest.seconds <= _WORTH * self.done[0].seconds else self.done[0]

    def _culprit(self, settings: Settings) -> str:
        """What failed: decoders are measured first."""
        return settings.tower if _decoder(settings) in self._decodes else str(settings.variant)

    def _measure(self, settings: Settings) -> Trial:
        tower, decoder = (settings.tower, settings.threads, settings.tile_batch), _decoder(settings)
        if decoder not in self._decodes:
            self._decodes[decoder] = self._stages.decode(*decoder)
        if tower not in self._tiles:
            self._tiles[tower] = self._stages.tile(*tower) if self._work.tiles else 0.0
        tile, (token, step), work = self._tiles[tower], self._decodes[decoder], self._work
        whole = tile * work.tiles + token * work.prompt_tokens + step * work.answer_tokens
        return Trial(settings=settings, tile_s=tile, token_s=token, step_s=step, seconds=whole)


def _decoder(settings: Settings) -> tuple[Variant, int, int]:
    """What a decoder's speed depends on."""
    return settings.variant, settings.threads, settings.chunk


def thread_counts(default: int, usable: int) -> list[int]:
    """Numbers of threads worth trying: the default, half of it, one less, and all cores."""
    wanted = (default, usable, max(1, default - 1), max(1, default // 2))
    return list(dict.fromkeys(count for count in wanted if count <= usable))
