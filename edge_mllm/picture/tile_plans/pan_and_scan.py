"""The whole picture first; of a long one, equal pieces of its longer side after it, each stretched to a tile."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from edge_mllm.bundle.tilers import PanAndScan
from edge_mllm.picture.tile_plans.steps import Box, Resize, TilePlan, check_count


def plan(width: int, height: int, tiler: PanAndScan) -> TilePlan:
    """Piece for piece as transformers' PIL image processor (Apache-2.0) of this mechanism cuts them.

    Pieces are cut from the picture itself, and the last one is what is left.
    """
    whole = Resize(tiler.tile, tiler.tile)
    pieces = _pieces(width, height, tiler)
    if not pieces:
        box = (0, 0, tiler.tile, tiler.tile)
        return TilePlan(width=width, height=height, steps=(whole,), crops=(box,), rows=1, cols=1)
    across = width >= height
    return TilePlan(
        width=width,
        height=height,
        steps=(),
        crops=pieces,
        rows=1 if across else len(pieces),
        cols=len(pieces) if across else 1,
        tile_steps=(whole,),
        global_steps=(whole,),
        global_first=True,
    )


def _pieces(width: int, height: int, tiler: PanAndScan) -> tuple[Box, ...]:
    """The order of the float operations is the reference's."""
    longer, shorter = max(width, height), min(width, height)
    if tiler.max_crops < 2 or longer / shorter < tiler.min_ratio:
        return ()
    count = min(math.floor(longer / tiler.min_crop), math.floor(longer / shorter + 0.5))
    count = min(tiler.max_crops, max(2, count))
    side = math.ceil(longer / count)
    if min(side, shorter) < tiler.min_crop or side * (count - 1) >= longer:  # or the last would be empty
        return ()
    check_count(width, height, count)
    edges = [(side * number, min(side * (number + 1), longer)) for number in range(count)]
    if width >= height:
        return tuple((start, 0, end, height) for start, end in edges)
    return tuple((0, start, width, end) for start, end in edges)


def coarser(tiler: PanAndScan) -> Iterator[PanAndScan]:
    """The tiler itself, then fewer pieces at most, then none."""
    for most in (*range(tiler.max_crops, 1, -1), 0):
        yield replace(tiler, max_crops=most)
