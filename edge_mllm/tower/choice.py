"""A bundle's tower whose library nobody named: the first picture measures those that are installed, once a machine.

Each library runs one tile of the picture a few times. Another than the default one is taken where it is clearly faster
and its embeddings agree with the default's within the tolerance of towers (:mod:`edge_mllm.tower.agreement`). What was
chosen is remembered (:mod:`edge_mllm.tower.remembered`), so that every later run gives the same bits.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge_mllm.arrays import FloatArray
from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.errors import EdgeMLLMError
from edge_mllm.machine.memory import available_bytes
from edge_mllm.picture.tile_plan import Grid
from edge_mllm.tower.agreement import disagreement
from edge_mllm.tower.engines import TowerEngine, engine_label
from edge_mllm.tower.placement import Placement
from edge_mllm.tower.protocol import Encoded, Progress, Tower
from edge_mllm.tower.remembered import ChoiceMemory, Chosen

_log = logging.getLogger(__name__)

_RUNS = 3
"""Runs that count, after one that does not: it touches memory for the first time."""
_ENOUGH_S = 1.0
"""A library is not run again when its runs took this long together."""
_HOPELESS_FIRST, _HOPELESS = 4.0, 1.5
"""A library is given up when its first run, or a later one, takes this many times the fastest one's time."""
_WORTH = 0.95
"""Another library must take at most this share of the default's time: less is noise, and costs its memory."""
_COPIES = 4
"""Sizes of the tower's files that loading another library beside the first may take for a while."""
_ADVICE = "`vision_engine` names one"


class PlacedTower(Tower, Protocol):
    """A tower that knows where it runs."""

    place: Placement


@dataclass
class _Race:
    """What was measured so far."""

    best: PlacedTower
    seconds: dict[str, float] = field(default_factory=dict)
    passed: dict[str, str] = field(default_factory=dict)


class ChoosingTower:
    """See :class:`edge_mllm.tower.protocol.Tower`. Until it is settled, the default library runs it.

    Args:
        spec: Of the bundle.
        places: Where it may run, the default first.
        opens: Makes the tower for a place, which is loaded when it is needed.
        memory: Where the choice is kept.
        measures: Whether it may be measured; else only what is remembered counts.
    """

    def __init__(
        self,
        spec: BundleSpec,
        places: Sequence[Placement],
        opens: Callable[[Placement], PlacedTower],
        memory: ChoiceMemory,
        *,
        measures: bool = True,
    ) -> None:
        self.row_width = spec.decoder.row_width
        self._spec, self._places, self._opens = spec, tuple(places), opens
        self._memory, self._measures = memory, measures
        self._lock, self._settled = threading.Lock(), False
        self._current = opens(self._places[0])

    @property
    def place(self) -> Placement:
        """Where it runs."""
        return self._current.place

    @property
    def loaded(self) -> bool:
        """As the protocol says."""
        return self._current.loaded

    @property
    def tile_tokens(self) -> int | None:
        """As the protocol says."""
        return self._current.tile_tokens

    @property
    def apart(self) -> bool:
        """As the protocol says."""
        return self._current.apart

    @property
    def newline(self) -> FloatArray | None:
        """As the protocol says."""
        return self._current.newline

    def load(self) -> None:
        """Load what is remembered, else the default, which may be replaced with the first picture."""
        with self._lock:
            self._recall()
        self._current.load()

    def encode(
        self, pixels: FloatArray, progress: Progress | None = None, *, grids: Sequence[Grid] | None = None
    ) -> Encoded:
        """Run it over one picture, after it was settled."""
        self.settle(lambda: pixels, grids)
        return self._current.encode(pixels, progress, grids=grids)

    def close(self) -> None:
        """Free it; the choice stays."""
        self._current.close()

    def settle(self, pixels: Callable[[], FloatArray], grids: Sequence[Grid] | None) -> None:
        """Decide what runs it, by memory or by measuring; does nothing where that is done.

        Args:
            pixels: Gives a picture as the tower takes it; called where it must be measured.
            grids: Of its tiles, for a tower that takes any size.

        Raises:
            EdgeMLLMError: The default library does not run the tower.
        """
        with self._lock:
            self._recall()
            if not self._settled and self._may_measure():
                self._measure(pixels(), grids)
            self._settled = True

    def _recall(self) -> None:
        """Take what is remembered, once. A library that cannot be loaded any more leaves the default."""
        found = None if self._settled else self._memory.find()
        place = None if found is None else self._place(found.engine)
        if place is None:
            return
        self._settled = True
        try:
            engine_label(place.engine)
            self._take(place)
        except EdgeMLLMError as error:
            _log.warning("the tower runs on %s instead of %s: %s", self.place.engine, place.engine, error)

    def _place(self, engine: TowerEngine) -> Placement | None:
        return next((place for place in self._places if place.engine == engine), None)

    def _take(self, place: Placement) -> None:
        if place != self._current.place:
            taken = self._opens(place)
            self._current.close()
            self._current = taken

    def _may_measure(self) -> bool:
        if not self._measures:
            return False
        reason, free = "", available_bytes()
        needed = _COPIES * sum(self._spec.parts[name].bytes for name in {place.part for place in self._places})
        if free is not None and free < needed:
            reason = f"that may take {needed / 1e6:.0f} MB of memory, {free / 1e6:.0f} MB are free"
        try:
            self._memory.check_room()
        except OSError as error:
            reason = f"what was found could not be kept ({error})"
        if reason:
            _log.warning("the libraries for the tower are not compared: %s; %s", reason, _ADVICE)
        return not reason

    def _measure(self, pixels: FloatArray, grids: Sequence[Grid] | None) -> None:
        start = time.perf_counter()
        race = self._race(*self._tile(pixels, grids))
        self._current = race.best
        mine = self._memory.chosen(
            race.best.place.engine,
            "first picture",
            seconds=race.seconds,
            passed=race.passed,
            measured_s=round(time.perf_counter() - start, 3),
        )
        try:
            chosen = self._memory.keep_first(mine)
        except OSError as error:
            _log.warning("which library runs the tower cannot be remembered: %s", error)
            chosen = mine
        self._take(self._place(chosen.engine) or race.best.place)
        _log.warning("%s", told(chosen))

    def _tile(self, pixels: FloatArray, grids: Sequence[Grid] | None) -> tuple[FloatArray, Sequence[Grid] | None]:
        """The first tile of a picture."""
        patches = self._spec.vision.patches
        if patches is None or not grids:
            return pixels[:1], grids
        rows, cols = grids[0]
        return pixels[: rows * cols * patches.merge**2], grids[:1]

    def _race(self, tile: FloatArray, grids: Sequence[Grid] | None) -> _Race:
        race = _Race(self._current)
        self._current.load()
        ours = self._current.encode(tile, grids=grids)
        race.seconds[self.place.engine] = _seconds(self._current, (tile, grids), ours.seconds, math.inf)
        for place in self._places[1:]:
            try:
                self._enter(race, place, (tile, grids), ours.embeddings)
            except EdgeMLLMError as error:
                race.passed[place.engine] = str(error)
        return race

    def _enter(
        self, race: _Race, place: Placement, tile: tuple[FloatArray, Sequence[Grid] | None], ours: FloatArray
    ) -> None:
        """Measure one library beside those before it; what is not the best is freed.

        Raises:
            EdgeMLLMError: It does not run the tower.
        """
        other, fastest = self._opens(place), min(race.seconds.values())
        loser: PlacedTower = other
        try:
            other.load()
            theirs = other.encode(tile[0], grids=tile[1])
            precision = self._spec.parts[self._places[0].part].precision
            reason = disagreement(ours, theirs.embeddings, self._spec.decoder.n_embd, precision)
            if reason:
                race.passed[place.engine] = reason
                return
            took = _seconds(other, tile, theirs.seconds, fastest)
            race.seconds[place.engine] = took
            default = race.seconds[self._places[0].engine]
            if took <= _WORTH * default and took < race.seconds[race.best.place.engine]:
                loser, race.best = race.best, other
        finally:
            loser.close()


def _seconds(tower: PlacedTower, tile: tuple[FloatArray, Sequence[Grid] | None], first: float, fastest: float) -> float:
    """The shortest of a few runs over a tile, after a first one; that one where more would be a waste of time."""
    best, spent = math.inf, first
    if first > _HOPELESS_FIRST * fastest:
        return first
    for _ in range(_RUNS):
        if spent >= _ENOUGH_S or _HOPELESS * fastest < best < math.inf:
            break
        seconds = tower.encode(tile[0], grids=tile[1]).seconds
        best, spent = min(best, seconds), spent + seconds
    return min(best, first)


def told(chosen: Chosen) -> str:
    """A choice in one line for people: what, why, what it took, and how to have another."""
    times = ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in sorted(chosen.seconds.items()))
    passed = "".join(f"; not {name}: {reason}" for name, reason in chosen.passed.items())
    return (
        f"the tower runs on {chosen.engine} from now on: {times} a tile, measured in {chosen.measured_s:.1f} s"
        f"{passed}; {_ADVICE}"
    )
