"""How the visual tokens of a picture lie: rectangles one after the other, some with line ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edge_mllm.picture.tile_plan import TilePlan


@dataclass(frozen=True, kw_only=True)
class TokenArea:
    """A rectangle of tokens, row by row, usually what one tile became.

    Without columns it is a line end alone.
    """

    rows: int
    cols: int
    line_ends: bool = False
    """Whether a newline embedding follows every row."""
    gridded: bool = True
    """Whether rows and columns are those of the picture; else the tokens are a plain list."""

    @property
    def width(self) -> int:
        """Tokens of a row, its end included."""
        return self.cols + int(self.line_ends)

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.rows * self.width

    @property
    def content(self) -> int:
        """Those that show something: no line ends."""
        return self.rows * self.cols

    @property
    def ends(self) -> int:
        """Line ends."""
        return self.rows * int(self.line_ends)

    def pooled(self, ratio: float) -> TokenArea:
        """The rectangle of averages that has about ``ratio`` of the tokens and the same shape, sides rounded."""
        if self.cols == 0:
            return self
        if min(self.rows, self.cols) > 1:
            ratio = math.sqrt(ratio)
            return replace(self, rows=_side(self.rows, ratio), cols=_side(self.cols, ratio))
        return replace(self, rows=_side(self.rows, ratio), cols=_side(self.cols, ratio))


def token_areas(plan: TilePlan, tokens_per_tile: int) -> tuple[TokenArea, ...]:
    """The areas of a picture in the order of its image tokens, see :func:`edge_mllm.tower.stitching.join_tiles`.

    Args:
        plan: How the picture is tiled.
        tokens_per_tile: Visual tokens of a tile.
    """
    if plan.token_grids is not None:
        return tuple(TokenArea(rows=rows, cols=cols) for rows, cols in plan.token_grids)
    side = math.isqrt(tokens_per_tile)
    square = side**2 == tokens_per_tile and plan.unit is None
    tile = TokenArea(rows=side, cols=side) if square else TokenArea(rows=1, cols=tokens_per_tile, gridded=False)
    if plan.stitch is None:
        return (tile,) * plan.count
    if plan.count == 1:
        return (tile,) if plan.stitch.plain else (tile, TokenArea(rows=1, cols=0, line_ends=True))
    found = plan.token_map(tokens_per_tile)
    parts = [tile] * int(plan.has_global)
    grid = TokenArea(rows=found.new_rows, cols=found.new_cols, line_ends=found.newlines)
    return (*parts, grid) if plan.global_first else (grid, *parts)


def _side(count: int, ratio: float) -> int:
    return max(1, math.floor(count * ratio + 0.5))
