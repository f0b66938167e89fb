"""Of a list of grids the one that keeps most of the picture, which is scaled into it or stretched onto it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from edge_mllm.bundle.tilers import BestFitGrid
from edge_mllm.picture.tile_plans.steps import Pad, Resize, Step, TilePlan, check_count, grid_boxes


def plan(width: int, height: int, tiler: BestFitGrid) -> TilePlan:
    """Size for size as transformers' PIL image processors (Apache-2.0) of this tiling plan it.

    They pad; stretching instead is that of You et al., arXiv 2404.05719, as published.
    """
    tile = tiler.tile
    whole = (Resize(tile, tile),)
    if not tiler.grids:
        box = (0, 0, tile, tile)
        return TilePlan(width=width, height=height, steps=whole, crops=(box,), rows=1, cols=1, stitch=tiler.stitch)
    rows, cols = best_grid(width, height, tiler)
    check_count(width, height, rows * cols)
    canvas = (cols * tile, rows * tile)
    steps: tuple[Step, ...] = (Resize(*canvas),)
    if tiler.fit == "pad":
        scaled = _scaled_into(width, height, *canvas)
        left, top = (canvas[0] - scaled[0]) // 2, (canvas[1] - scaled[1]) // 2
        steps = (Resize(*scaled), Pad(*canvas, left, top))
    return TilePlan(
        width=width,
        height=height,
        steps=steps,
        crops=grid_boxes(rows, cols, tile, tile),
        rows=rows,
        cols=cols,
        global_steps=whole,
        global_first=True,
        global_from_picture=True,
        stitch=tiler.stitch,
    )


def best_grid(width: int, height: int, tiler: BestFitGrid) -> tuple[int, int]:
    """Rows and columns of the grid that keeps most of the picture.

    Pixels kept are those of the picture scaled into the grid, but no more than the picture has; the rest of the grid
    is wasted. Grids are tried in order. One takes the place of the best so far if it keeps more than ``slack`` times
    its pixels more, or if it keeps less than ``slack`` times fewer (without slack: equally many) and wastes less.
    Without slack this is ``select_best_resolution`` of transformers, with slack Algorithm 1 of Lu et al., arXiv
    2411.10640.
    """
    best, most, least_waste = tiler.grids[0], 0, math.inf
    for rows, cols in tiler.grids:
        scale = min(cols * tiler.tile / width, rows * tiler.tile / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        waste = rows * cols * tiler.tile**2 - kept
        nearly = kept == most or most - kept < tiler.slack * most
        if kept - most > tiler.slack * most or (nearly and waste < least_waste):
            best, most, least_waste = (rows, cols), kept, waste
    return best


def coarser(tiler: BestFitGrid) -> Iterator[BestFitGrid]:
    """The tiler itself, then without its largest grids, down to the tile of the whole picture alone."""
    yield tiler
    for most in sorted({rows * cols for rows, cols in tiler.grids}, reverse=True):
        yield replace(tiler, grids=tuple(grid for grid in tiler.grids if grid[0] * grid[1] < most))


def _scaled_into(width: int, height: int, canvas_width: int, canvas_height: int) -> tuple[int, int]:
    """The largest size with the picture's ratio in the canvas, rounded up, in the reference's order of operations."""
    across, down = canvas_width / width, canvas_height / height
    if across < down:
        return canvas_width, min(math.ceil(height * across), canvas_height)
    return min(math.ceil(width * down), canvas_width), canvas_height
