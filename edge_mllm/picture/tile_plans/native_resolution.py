"""No tiles: the whole picture at its own size, rounded to whole units and brought between two numbers of pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from edge_mllm.bundle.tilers import NativeResolution
from edge_mllm.errors import ImageError
from edge_mllm.picture.tile_plans.steps import Resize, TilePlan

MAX_RATIO = 200
"""Longest side over shortest, as in the reference image processor."""


def plan(width: int, height: int, tiler: NativeResolution) -> TilePlan:
    """Size for size as transformers' PIL image processor (Apache-2.0) of this mechanism plans it.

    Raises:
        ImageError: One side is more than :data:`MAX_RATIO` times the other.
    """
    if max(width, height) / min(width, height) > MAX_RATIO:
        raise ImageError(f"of {width}x{height} pixels", f"no side may be more than {MAX_RATIO} times the other")
    new_width, new_height = _size(width, height, tiler)
    return TilePlan(
        width=width,
        height=height,
        steps=(Resize(new_width, new_height),),
        crops=((0, 0, new_width, new_height),),
        rows=1,
        cols=1,
        token_grid=(new_height // tiler.unit, new_width // tiler.unit),
    )


def coarser(tiler: NativeResolution) -> Iterator[NativeResolution]:
    """The tiler itself, then fewer pixels at most, in steps of one token or, for many tokens, of one in 64."""
    tokens = tiler.max_pixels // tiler.unit**2
    yield tiler
    while tokens > 1:
        tokens -= max(1, tokens // 64)
        yield at_most(tiler, tokens)


def at_most(tiler: NativeResolution, tokens: int) -> NativeResolution:
    """The same with no more pixels than ``tokens`` units have."""
    pixels = min(tiler.max_pixels, tokens * tiler.unit**2)
    return replace(tiler, min_pixels=min(tiler.min_pixels, pixels), max_pixels=pixels)


def _size(width: int, height: int, tiler: NativeResolution) -> tuple[int, int]:
    """Width and height after resizing; the order of the float operations is the reference's."""
    unit = tiler.unit
    new_height, new_width = round(height / unit) * unit, round(width / unit) * unit
    if new_height * new_width > tiler.max_pixels:
        shrink = math.sqrt((height * width) / tiler.max_pixels)
        new_height = max(unit, math.floor(height / shrink / unit) * unit)
        new_width = max(unit, math.floor(width / shrink / unit) * unit)
    elif new_height * new_width < tiler.min_pixels:
        grow = math.sqrt(tiler.min_pixels / (height * width))
        new_height = math.ceil(height * grow / unit) * unit
        new_width = math.ceil(width * grow / unit) * unit
    return new_width, new_height
