"""The closed set of tilers, as data. What they do is in :mod:`edge_mllm.picture.tiling`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edge_mllm.typed_json import LATER


@dataclass(frozen=True, kw_only=True)
class LongestEdgeGrid:
    """Scale the longest edge to ``longest_edge``, round both sides up to tiles, cut row-major, global tile last."""

    kind: Literal["longest_edge_grid"] = "longest_edge_grid"
    longest_edge: int
    tile: int
    split: bool = True


@dataclass(frozen=True, kw_only=True)
class AspectGrid:
    """Stretch the picture onto the grid of nearest ratio, cut row-major, a thumbnail of the whole picture last."""

    kind: Literal["aspect_grid"] = "aspect_grid"
    tile: int
    min_tiles: int = 1
    max_tiles: int
    thumbnail: bool = True


@dataclass(frozen=True, kw_only=True)
class NativeResolution:
    """No tiles: the picture keeps its size, rounded to whole units and brought into bounds, ratio kept.

    One visual token stands for one unit of ``unit`` x ``unit`` pixels.
    """

    kind: Literal["native_resolution"] = "native_resolution"
    unit: int
    min_pixels: int
    max_pixels: int


@dataclass(frozen=True, kw_only=True)
class Stitch:
    """The tokens of all tiles become one map, its padding is cut off, and every row ends with the newline embedding.

    The tokens of the tile that shows the whole picture stay as they are. Where there is only one tile, one newline
    follows its tokens.
    """

    max_tiles: int | None = None
    """A map with clearly more tokens than so many tiles have is shrunk; None keeps it as it is."""
    plain: bool = False
    """Whether that is all: nothing is cut off and there is no newline. For tiles without padding."""


@dataclass(frozen=True, kw_only=True)
class BestFitGrid:
    """Of a list of grids the one that keeps most pixels of the picture, if it is scaled into it with its ratio kept.

    So it is scaled, and centred on black; with ``stretch`` it fills the grid. A tile of the whole picture, stretched,
    comes first. An empty list leaves that tile alone.
    """

    kind: Literal["best_fit_grid"] = "best_fit_grid"
    tile: int
    grids: tuple[tuple[int, int], ...]
    """Rows and columns, in the order in which they are tried."""
    slack: float = 0.0
    """A grid that keeps less than this share of pixels fewer may take the place of an earlier one if it wastes less."""
    fit: Literal["pad", "stretch"] = "pad"
    stitch: Stitch | None = None


@dataclass(frozen=True, kw_only=True)
class SingleTile:
    """One tile a picture.

    ``stretch`` forgets the ratio; ``crop`` scales the shorter side to the tile and keeps the middle; ``pad`` puts the
    picture in the middle of a square of the colour ``fill`` and scales that.
    """

    kind: Literal["single_tile"] = "single_tile"
    tile: int
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    fill: tuple[int, int, int] = (0, 0, 0)
    stitch: Stitch | None = None


@dataclass(frozen=True, kw_only=True)
class PanAndScan:
    """The picture stretched to a tile, then, if it is long enough, pieces of it side by side, each stretched to a tile.

    A picture is cut along its longer side where that is ``min_ratio`` times the shorter one or more, into about as
    many pieces as the ratio says, two to ``max_crops``, unless a side of them would be below ``min_crop`` pixels.
    With fewer than two ``max_crops`` nothing is cut.
    """

    kind: Literal["pan_and_scan"] = "pan_and_scan"
    tile: int
    min_crop: int
    max_crops: int
    min_ratio: float


@dataclass(frozen=True, kw_only=True)
class AdaptiveSlices:
    """The whole picture first; of a large one, a grid of equal slices after it, row by row.

    Each has about as many pixels as a square of ``tile`` pixels a side, and keeps the picture's ratio of sides: both
    are whole patches, or whole squares of ``merge`` x ``merge`` patches, and sizes differ from picture to picture.
    """

    kind: Literal["adaptive_slices"] = "adaptive_slices"
    tile: int
    patch: int
    """Side of a patch in pixels."""
    max_slices: int
    merge: int | None = field(default=None, metadata=LATER)
    """``merge`` x ``merge`` patches become one visual token, so that larger slices have more; None where every slice
    becomes as many tokens as any other."""

    @property
    def unit(self) -> int:
        """Sides of slices are whole multiples of so many pixels."""
        return self.patch * (self.merge or 1)


Tiler = LongestEdgeGrid | AspectGrid | NativeResolution | BestFitGrid | SingleTile | PanAndScan | AdaptiveSlices
"""Union of all tilers; a new mechanism is one more dataclass here and one module in tile_plans/."""
