"""What a plan is made of. Integers only, no pixels."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from edge_mllm.bundle.tilers import Stitch
from edge_mllm.errors import ImageError
from edge_mllm.picture.tile_plans.token_map import TokenMap, token_map

MAX_TILES = 1024
"""Most tiles of one picture; more is a damaged bundle, not a picture."""


@dataclass(frozen=True)
class Resize:
    """Resample the whole canvas to width x height with the model's filter."""

    width: int
    height: int


@dataclass(frozen=True)
class Pad:
    """Put the canvas at (left, top) of a larger one that is filled with one RGB colour."""

    width: int
    height: int
    left: int = 0
    top: int = 0
    fill: tuple[int, int, int] = (0, 0, 0)


Step = Resize | Pad
Grid = tuple[int, int]
"""Rows and columns."""
Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels of the canvas; right and bottom are exclusive."""


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """How one picture becomes tiles.

    ``steps`` turn the picture into a canvas, ``crops`` cut the canvas row by row, ``tile_steps`` are applied to every
    crop. With ``global_steps`` a further tile shows the whole; it comes last unless ``global_first``.
    """

    width: int
    height: int
    steps: tuple[Step, ...]
    crops: tuple[Box, ...]
    rows: int
    cols: int
    tile_steps: tuple[Step, ...] = ()
    global_steps: tuple[Step, ...] | None = None
    global_first: bool = False
    global_from_picture: bool = False
    """The global tile is made from the picture itself, not from the canvas."""
    token_grid: Grid | None = None
    """Rows and columns of visual tokens, where the tower takes the whole picture at any size."""
    unit: int | None = None
    """Side, in pixels, of the squares that tiles are made of, where the sizes of tiles are the picture's own."""
    unit_tokens: bool = False
    """Each of these squares becomes a visual token; else each tile becomes as many tokens as any other."""
    stitch: Stitch | None = None
    """The tiles' tokens are put together, see :mod:`edge_mllm.tower.stitching`."""
    skipped: tuple[int, ...] = ()
    """Numbers of crops that are left out, in order, see :mod:`edge_mllm.picture.reduction.tiles`."""

    @functools.cached_property
    def has_global(self) -> bool:
        """Whether one tile shows the whole picture beside the grid."""
        return self.global_steps is not None

    @functools.cached_property
    def count(self) -> int:
        """Number of tiles, the global one included."""
        return len(self.crops) + int(self.has_global) - len(self.skipped)

    @property
    def places(self) -> list[int]:
        """Which of all tiles, the global one where it comes, are not skipped."""
        first = int(self.has_global and self.global_first)
        gone = {first + crop for crop in self.skipped}
        return [place for place in range(len(self.crops) + int(self.has_global)) if place not in gone]

    @property
    def grids(self) -> tuple[Grid, ...] | None:
        """Rows and columns of units in each tile that is not skipped, where a tower takes any size; else None."""
        if self.token_grid is not None:
            return (self.token_grid,)
        if self.unit is None:
            return None
        width, height = self.tile_size
        found = [(height // self.unit, width // self.unit)] * len(self.crops)
        if self.global_steps is not None:
            whole = self.global_steps[-1]
            found.insert(0 if self.global_first else len(found), (whole.height // self.unit, whole.width // self.unit))
        return tuple(found[place] for place in self.places)

    @property
    def token_grids(self) -> tuple[Grid, ...] | None:
        """Those of visual tokens; None where each tile becomes as many as any other."""
        return self.grids if self.token_grid is not None or self.unit_tokens else None

    def tokens(self, tokens_per_tile: int) -> int:
        """Visual tokens of the picture."""
        if self.stitch is None:
            return sum(self.tile_tokens(tokens_per_tile))
        if self.count == 1:
            return tokens_per_tile + int(not self.stitch.plain)
        return tokens_per_tile * int(self.has_global) + self.token_map(tokens_per_tile).tokens

    def tile_tokens(self, tokens_per_tile: int) -> tuple[int, ...]:
        """Visual tokens of each tile that is not skipped, as the tower gives them."""
        if self.token_grids is not None:
            return tuple(rows * cols for rows, cols in self.token_grids)
        return (tokens_per_tile,) * self.count

    def token_map(self, tokens_per_tile: int) -> TokenMap:
        """What is left of the map of all tiles' tokens when they are stitched."""
        picture, grid = (self.width, self.height), (self.rows, self.cols)
        return token_map(picture, grid, tokens_per_tile, self.stitch or Stitch())

    @property
    def tile_size(self) -> tuple[int, int]:
        """Width and height of the tiles in pixels."""
        if self.tile_steps:
            return self.tile_steps[-1].width, self.tile_steps[-1].height
        left, top, right, bottom = self.crops[0]
        return right - left, bottom - top


def grid_boxes(rows: int, cols: int, width: int, height: int) -> tuple[Box, ...]:
    """Boxes of a grid of tiles of width x height, row by row."""
    return tuple(
        (col * width, row * height, (col + 1) * width, (row + 1) * height) for row in range(rows) for col in range(cols)
    )


def check_count(width: int, height: int, tiles: int) -> None:
    """Refuse a grid that no picture needs.

    Raises:
        ImageError: It has more than :data:`MAX_TILES` tiles.
    """
    if tiles > MAX_TILES:
        raise ImageError(f"of {width}x{height} pixels", f"it would need {tiles} tiles, the limit is {MAX_TILES}")
