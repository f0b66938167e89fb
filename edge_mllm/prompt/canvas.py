"""Positions of tokens where a picture is a canvas: its slices lie on it as they lie in the picture, marks and all.

Known as canvas M-RoPE; ``tests/runtime/test_canvas.py`` compares it with the class of transformers that has it. All
tokens of a picture have the same time. Tokens of a slice count rows and columns of the canvas, those of the whole
picture are spread over it, and marks stand at the corners of what they open or close. Text goes on behind the canvas's
longer side. Which positions a mark has cannot be told from it and what is before it alone, so they are computed once,
for a whole prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edge_mllm.arrays import IntArray
from edge_mllm.picture.tile_plan import Grid, TilePlan

AXES = 3
"""Time, row, column."""


@dataclass(frozen=True)
class PictureTokens:
    """Where one picture's visual tokens are in the ids of a prompt."""

    plan: TilePlan
    places: IntArray
    """int64 [visual tokens], ascending; the first one has a mark before it."""


def canvas_places(ids: IntArray, pictures: Sequence[PictureTokens], marks: Collection[int]) -> IntArray:
    """Positions of a whole prompt.

    Args:
        ids: Of the prompt, int64 [n].
        pictures: In order; their tiles have tokens of their own number.
        marks: Token ids that still belong to a picture where they follow it without a gap.

    Returns:
        int64 [4, n]: time, row and column of each token, and the position that follows it: within a picture and its
        marks the one that follows the whole picture.
    """
    found = np.empty((AXES + 1, len(ids)), np.int64)
    done = following = 0
    for picture in pictures:
        start, end = max(int(picture.places[0]) - 1, 0), int(picture.places[-1]) + 1
        while end < len(ids) and int(ids[end]) in marks:
            end += 1
        if start > done:  # else the mark before it followed the last picture without a gap
            following = _text(found, slice(done, start), following)
        canvas = _Canvas(picture, found[:AXES, :end], start, following)
        canvas.fill()
        following = canvas.following
        found[AXES, start:end] = following
        done = end
    _text(found, slice(done, len(ids)), following)
    return found


def _text(found: IntArray, part: slice, start: int) -> int:
    """Number text; return what follows it."""
    count = int(part.stop) - int(part.start)
    found[:AXES, part] = start + np.arange(count)
    found[AXES, part] = start + 1 + np.arange(count)
    return start + count


class _Canvas:
    """One picture's.

    Args:
        picture: Its tokens.
        found: int64 [3, n] to fill, up to its last mark.
        start: Where its first mark is.
        origin: Position of the canvas's first row and column, and the time of all of it.
    """

    def __init__(self, picture: PictureTokens, found: IntArray, start: int, origin: int) -> None:
        self._plan, self._places, self._found = picture.plan, picture.places, found
        self._start, self._origin = start, origin
        width, height = picture.plan.tile_size
        unit = picture.plan.unit or 1
        self._slice = height // unit, width // unit
        self._rows, self._cols = picture.plan.rows * self._slice[0], picture.plan.cols * self._slice[1]

    @property
    def following(self) -> int:
        """Position of what comes behind the picture."""
        return self._origin + max(self._rows, self._cols) + 1

    def fill(self) -> None:
        """Write the positions of its tokens and marks."""
        plan, found = self._plan, self._found
        found[:, self._start :] = self._origin
        found[1:, self._start] = max(self._origin - 1, 0)  # just outside its first corner
        grids = plan.token_grids or ()
        tiles = np.split(self._places, np.cumsum([rows * cols for rows, cols in grids[:-1]]))
        self._whole(tiles[0], grids[0])
        numbers = [number for number in range(len(plan.crops)) if plan.has_global and number not in plan.skipped]
        slices = list(zip(numbers, tiles[1:], strict=True))
        for number, places in slices:
            self._tile(number, places)
        for (number, before), (_, after) in pairwise(slices):
            row, col = (number // plan.cols + 1) * self._slice[0] - 1, self._cols
            self._put(np.arange(before[-1] + 2, after[0] - 1), row, col)  # the end of a row of slices, if it is one

    def _whole(self, places: IntArray, grid: Grid) -> None:
        """The whole picture, spread over the canvas, and the mark behind it at the far corner."""
        self._put_grid(places, spread(self._rows, grid[0]), spread(self._cols, grid[1]))
        self._put(places[-1:] + 1, self._rows, self._cols)

    def _tile(self, number: int, places: IntArray) -> None:
        """A slice, and the marks around it at its corners."""
        (rows, cols), (row, col) = self._slice, divmod(number, self._plan.cols)
        top, left = row * rows, col * cols
        self._put(places[:1] - 1, top, left)
        self._put(places[-1:] + 1, top + rows - 1, left + cols - 1)
        self._put_grid(places, top + np.arange(rows), left + np.arange(cols))

    def _put_grid(self, places: IntArray, rows: IntArray, cols: IntArray) -> None:
        self._found[1, places] = self._origin + np.repeat(rows, len(cols))
        self._found[2, places] = self._origin + np.tile(cols, len(rows))

    def _put(self, places: IntArray, row: int, col: int) -> None:
        inside = places[places < self._found.shape[1]]
        self._found[1, inside], self._found[2, inside] = self._origin + row, self._origin + col


def spread(length: int, count: int) -> IntArray:
    """``count`` whole numbers from 0 to ``length - 1``, int64 [count], as torch rounds them.

    ``torch.linspace(0, length - 1, count).round()`` steps from both ends in float32, so that a half is now and then
    rounded the other way than an exact one; the order of the operations is that.
    """
    if count == 1:
        return np.zeros(1, np.int64)
    step, number = np.float32(length - 1) / np.float32(count - 1), np.arange(count)
    from_end = np.float32(length - 1) - step * (count - 1 - number).astype(np.float32)
    values = np.where(number < count // 2, step * number.astype(np.float32), from_end)
    return np.rint(values).astype(np.int64)
