"""The longest edge gets a fixed length, both sides are rounded up to whole tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from edge_mllm.bundle.tilers import LongestEdgeGrid
from edge_mllm.picture.tile_plans.steps import Resize, TilePlan, check_count, grid_boxes

MAX_LONGEST_EDGE = 4096
"""Absolute bound on the first resize of a longest-edge grid, as in the reference image processor."""


def plan(width: int, height: int, tiler: LongestEdgeGrid) -> TilePlan:
    """Size for size as transformers' PIL image processor (Apache-2.0) plans it."""
    tile = tiler.tile
    scaled = _bounded(*_scaled(width, height, tiler.longest_edge))
    canvas = _rounded_up(*scaled, tile) if tiler.split else (tile, tile)
    cols, rows = canvas[0] // tile, canvas[1] // tile
    check_count(width, height, rows * cols)
    return TilePlan(
        width=width,
        height=height,
        steps=(Resize(*scaled), Resize(*canvas)),
        crops=grid_boxes(rows, cols, tile, tile),
        rows=rows,
        cols=cols,
        global_steps=(Resize(tile, tile),) if rows * cols > 1 else None,
    )


def coarser(tiler: LongestEdgeGrid) -> Iterator[LongestEdgeGrid]:
    """The tiler itself, then smaller longest edges in whole tiles, down to two tiles; splitting goes last."""
    whole = math.ceil(tiler.longest_edge / tiler.tile) - 1
    yield tiler
    for n in range(whole, 1, -1):
        yield replace(tiler, longest_edge=n * tiler.tile)
    yield replace(tiler, split=False)


# The three functions below divide floats and truncate in the reference's order on purpose: another order lands on
# another integer for some sizes, and then every pixel differs.


def _scaled(width: int, height: int, longest: int) -> tuple[int, int]:
    """The longest side becomes ``longest``, the other keeps the ratio and is made even (but stays above zero)."""
    ratio = width / height
    if width >= height:
        other = int(longest / ratio)
        return longest, max(other + other % 2, 1)
    other = int(longest * ratio)
    return max(other + other % 2, 1), longest


def _bounded(width: int, height: int) -> tuple[int, int]:
    """Scale down to ``MAX_LONGEST_EDGE``."""
    ratio = width / height
    if width >= height and width > MAX_LONGEST_EDGE:
        width, height = MAX_LONGEST_EDGE, int(MAX_LONGEST_EDGE / ratio)
    elif height > width and height > MAX_LONGEST_EDGE:
        width, height = int(MAX_LONGEST_EDGE * ratio), MAX_LONGEST_EDGE
    return max(width, 1), max(height, 1)


def _rounded_up(width: int, height: int, tile: int) -> tuple[int, int]:
    """Round the longer side up to whole tiles, let the other follow the ratio, and round it up too."""
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        return width, math.ceil(int(width / ratio) / tile) * tile
    height = math.ceil(height / tile) * tile
    return math.ceil(int(height * ratio) / tile) * tile, height
