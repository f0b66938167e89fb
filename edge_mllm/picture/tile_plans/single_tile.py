"""One tile a picture: stretched, or its middle cut out, or put on a square first."""

from __future__ import annotations

from collections.abc import Iterator

from edge_mllm.bundle.tilers import SingleTile
from edge_mllm.errors import ImageError
from edge_mllm.picture.tile_plans.steps import Pad, Resize, Step, TilePlan

MAX_RESIZED = 1 << 27
"""Most pixels of a picture after its shorter side has become the tile's: 400 MB."""


def plan(width: int, height: int, tiler: SingleTile) -> TilePlan:
    """Size for size as transformers' PIL image processors (Apache-2.0) of single-tile towers do it."""
    tile = tiler.tile
    steps: tuple[Step, ...] = (Resize(tile, tile),)
    left = top = 0
    if tiler.fit == "crop":
        new_width, new_height = _shorter_to(tile, width, height)
        steps = (Resize(new_width, new_height),)
        left, top = (new_width - tile) // 2, (new_height - tile) // 2
    elif tiler.fit == "pad" and width != height:
        side = max(width, height)
        steps = (Pad(side, side, (side - width) // 2, (side - height) // 2, tiler.fill), Resize(tile, tile))
    box = (left, top, left + tile, top + tile)
    return TilePlan(width=width, height=height, steps=steps, crops=(box,), rows=1, cols=1, stitch=tiler.stitch)


def _shorter_to(tile: int, width: int, height: int) -> tuple[int, int]:
    """The shorter side becomes ``tile``, the other keeps the ratio, rounded down."""
    longer = int(tile * max(width, height) / min(width, height))
    if longer * tile > MAX_RESIZED:
        reason = f"it is too long and thin: scaled up it would have {longer * tile} pixels, the limit is {MAX_RESIZED}"
        raise ImageError(f"of {width}x{height} pixels", reason)
    return (tile, longer) if width <= height else (longer, tile)


def coarser(tiler: SingleTile) -> Iterator[SingleTile]:
    """There is nothing coarser than one tile."""
    yield tiler
