"""The grid whose ratio of sides is nearest to the picture's; the picture is stretched onto it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edge_mllm.bundle.tilers import AspectGrid
from edge_mllm.picture.tile_plans.steps import Resize, TilePlan, check_count, grid_boxes


def plan(width: int, height: int, tiler: AspectGrid) -> TilePlan:
    """Grid for grid as transformers' PIL image processor (Apache-2.0) of this tiling plans it."""
    cols, rows = best_grid(width, height, tiler)
    check_count(width, height, rows * cols)
    tile = tiler.tile
    return TilePlan(
        width=width,
        height=height,
        steps=(Resize(cols * tile, rows * tile),),
        crops=grid_boxes(rows, cols, tile, tile),
        rows=rows,
        cols=cols,
        global_steps=(Resize(tile, tile),) if tiler.thumbnail and rows * cols > 1 else None,
        global_from_picture=True,
    )


def best_grid(width: int, height: int, tiler: AspectGrid) -> tuple[int, int]:
    """Columns and rows with ``min_tiles <= columns * rows <= max_tiles``, nearest to the picture's ratio.

    Of two grids at the same distance the one that comes later (more tiles; of equally many, more columns) is taken
    only if the picture has more than half as many pixels as it. The order matters for such ties alone, and the
    reference's is by number of tiles, then by columns.
    """
    ratio, area = width / height, width * height
    best, least = (1, 1), float("inf")
    for cols, rows in _grids(tiler.min_tiles, tiler.max_tiles):
        distance = abs(ratio - cols / rows)
        if distance < least:
            best, least = (cols, rows), distance
        elif distance == least and area > 0.5 * tiler.tile * tiler.tile * cols * rows:
            best = (cols, rows)
    return best


def _grids(least: int, most: int) -> list[tuple[int, int]]:
    grids = [(cols, rows) for cols in range(1, most + 1) for rows in range(1, most // cols + 1) if cols * rows >= least]
    return sorted(grids, key=lambda grid: grid[0] * grid[1])


def coarser(tiler: AspectGrid) -> Iterator[AspectGrid]:
    """The tiler itself, then fewer tiles at most, down to one."""
    for most in range(tiler.max_tiles, 0, -1):
        yield replace(tiler, min_tiles=min(tiler.min_tiles, most), max_tiles=most)
