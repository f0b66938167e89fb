"""Which position every cell of the cache has: one number, or three for multimodal rotary positions (M-RoPE).

With M-RoPE a text token has the same number on all three axes (time, height, width), and a picture's tokens share the
time, count rows and columns on the other two, and push what follows by the longer side of the grid only (Wang et al.,
arXiv 2409.12191, section 2.1). So positions are not cells, and cutting the cache back needs both. A picture of which
only some tokens are there gives them, and what follows, the positions they have in the whole picture. Segments that
come with positions of their own keep them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_mllm.arrays import IntArray
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.protocol import Segment, Tokens, Visual
from edge_mllm.decoders.segments import lengths
from edge_mllm.errors import EngineError


@dataclass(frozen=True)
class Placed:
    """Positions of one segment."""

    positions: IntArray
    """int64 [axes, n]."""
    after: IntArray
    """int64 [n]: the position that follows each cell; within a picture the one that follows the whole picture."""


def joined(placed: Sequence[Placed]) -> Placed:
    """Positions of segments that follow each other, as if they were one."""
    positions = np.concatenate([part.positions for part in placed], axis=1)
    return Placed(positions, np.concatenate([part.after for part in placed]))


class PositionTrack:
    """Positions of the cells in a cache, and the position of the next one."""

    def __init__(self, spec: DecoderSpec) -> None:
        self.axes, self._scheme = spec.axes, spec.positions
        self._after: list[int] = []

    def __len__(self) -> int:
        return len(self._after)

    @property
    def next(self) -> int:
        """Position of the next text token."""
        return self._after[-1] if self._after else 0

    def position_after(self, n_past: int) -> int:
        """Position of the token that would follow the first ``n_past`` cells."""
        return self._after[n_past - 1] if n_past else 0

    @property
    def after(self) -> IntArray:
        """int64 [n]: for each cell the position that follows it."""
        return np.array(self._after, np.int64)

    def truncate(self, n_past: int) -> None:
        """Forget the cells from ``n_past`` on."""
        del self._after[n_past:]

    def extend(self, after: IntArray) -> None:
        """Record cells that are in the cache now, by their entries of :attr:`Placed.after`."""
        self._after.extend(after.tolist())

    def place(self, segments: Sequence[Segment]) -> list[Placed]:
        """Positions of segments that follow the cache, one entry for each. Records nothing."""
        start, placed = self.next, []
        for segment, count in zip(segments, lengths(segments), strict=True):
            placed.append(self._place(segment, count, start))
            start = int(placed[-1].after[-1]) if count else start
        return placed

    def _place(self, segment: Segment, count: int, start: int) -> Placed:
        if segment.places is not None:
            return self._given(segment.places, count)
        if self._scheme == "sequential" or isinstance(segment, Tokens):
            line = np.arange(start, start + count, dtype=np.int64)
            return Placed(np.broadcast_to(line, (self.axes, count)), line + 1)
        if self._scheme == "canvas":
            raise EngineError("a picture's tokens need their places on its canvas for this model")
        rows, columns, places = _grid(segment, count)
        row, column = np.divmod(places, columns)
        positions = np.stack([np.full(count, start, np.int64), start + row, start + column])
        return Placed(positions, np.full(count, start + max(rows, columns), np.int64))

    def _given(self, places: IntArray, count: int) -> Placed:
        if places.shape != (self.axes + 1, count):
            expected = [self.axes + 1, count]
            raise EngineError(f"positions of {count} tokens must be {expected} here, got {list(places.shape)}")
        return Placed(places[:-1], places[-1])


def _grid(segment: Visual, count: int) -> tuple[int, int, IntArray]:
    """Rows, columns, and the place of each token in them."""
    rows, columns = segment.grid or (0, 0)
    places = np.arange(rows * columns, dtype=np.int64) if segment.kept is None else segment.kept
    ordered = len(places) == count and (np.diff(places) > 0).all()
    if not ordered or (count and not 0 <= places[0] <= places[-1] < rows * columns):
        raise EngineError(f"a picture of {count} visual tokens needs its grid for this model, got {segment.grid}")
    return rows, columns, places
