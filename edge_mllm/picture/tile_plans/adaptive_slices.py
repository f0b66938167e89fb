"""The whole picture, and for a large one a grid of slices of about one tile's area, whose sides follow the picture's.

The scheme of Xu et al. (arXiv 2403.11703, section 3.1) as Yao et al. (arXiv 2408.01800, section 3.2) use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from edge_mllm.bundle.tilers import AdaptiveSlices
from edge_mllm.errors import ImageError
from edge_mllm.picture.tile_plans.steps import Resize, TilePlan, check_count, grid_boxes

MAX_RATIO = 1024
"""How many times one side of a picture may be the other. The reference has no limit, but of a longer strip the whole
would be one row of more than a thousand patches, each of which looks at all others."""


def plan(width: int, height: int, tiler: AdaptiveSlices) -> TilePlan:
    """Slice for slice as the published image processor (Apache-2.0) of this mechanism plans it.

    Raises:
        ImageError: One side is more than :data:`MAX_RATIO` times the other.
    """
    if max(width, height) / min(width, height) > MAX_RATIO:
        raise ImageError(f"of {width}x{height} pixels", f"no side may be more than {MAX_RATIO} times the other")
    grid = best_grid(width, height, tiler)
    if grid is None:
        whole = Resize(*_fitted(width, height, tiler, enlarge=True))
        box = (0, 0, whole.width, whole.height)
        return TilePlan(width=width, height=height, steps=(whole,), crops=(box,), rows=1, cols=1, **_units(tiler))
    cols, rows = grid
    check_count(width, height, rows * cols)
    slice_width, slice_height = _fitted(_whole(width, cols) / cols, _whole(height, rows) / rows, tiler, enlarge=True)
    return TilePlan(
        width=width,
        height=height,
        steps=(Resize(slice_width * cols, slice_height * rows),),
        crops=grid_boxes(rows, cols, slice_width, slice_height),
        rows=rows,
        cols=cols,
        global_steps=(Resize(*_fitted(width, height, tiler, enlarge=False)),),
        global_first=True,
        global_from_picture=True,
        **_units(tiler),
    )


def _units(tiler: AdaptiveSlices) -> dict[str, Any]:
    return {"unit": tiler.unit, "unit_tokens": tiler.merge is not None}


def best_grid(width: int, height: int, tiler: AdaptiveSlices) -> tuple[int, int] | None:
    """Columns and rows of slices; None for a picture that has no more pixels than a tile.

    There are about as many slices as the picture has tiles of pixels, one more or one less. The grid whose ratio of
    sides is nearest to the picture's, by its logarithm, is taken; of equals the first.
    """
    ideal = min(math.ceil(width * height / (tiler.tile * tiler.tile)), tiler.max_slices)
    if ideal <= 1:
        return None
    ratio, best, least = math.log(width / height), (1, 1), float("inf")
    for count in (ideal - 1, ideal, ideal + 1):
        if count == 1 or count > tiler.max_slices:
            continue
        for cols in range(1, count + 1):
            distance = abs(ratio - math.log(cols / (count // cols)))
            if count % cols == 0 and distance < least:
                best, least = (cols, count // cols), distance
    return best


def coarser(tiler: AdaptiveSlices) -> Iterator[AdaptiveSlices]:
    """The tiler itself, then fewer slices at most, then the whole picture alone."""
    for most in range(tiler.max_slices, 0, -1):
        yield replace(tiler, max_slices=most)


def _fitted(width: float, height: float, tiler: AdaptiveSlices, *, enlarge: bool) -> tuple[int, int]:
    """Width and height in whole units; the order of the float operations is the reference's."""
    if enlarge or width * height > tiler.tile * tiler.tile:
        ratio = width / height
        height = int(tiler.tile / math.sqrt(ratio))
        width = int(height * ratio)
    return _whole(width, tiler.unit), _whole(height, tiler.unit)


def _whole(length: float, unit: int) -> int:
    """The nearest multiple, at least one of them."""
    return max(round(length / unit) * unit, unit)
