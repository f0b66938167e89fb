"""Which rectangles of a picture become tiles: integers in, integers out, no pixels.

A plan is a list of steps any tiler can be written with, so one piece of pixel code (:mod:`edge_mllm.picture.tiling`)
serves all of them. A new mechanism is one dataclass in :mod:`edge_mllm.bundle.tilers` and one module in
:mod:`edge_mllm.picture.tile_plans`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from edge_mllm.bundle.tilers import NativeResolution, Tiler
from edge_mllm.errors import ImageError, SettingError
from edge_mllm.picture.tile_plans import (
    adaptive_slices,
    aspect_grid,
    best_fit,
    longest_edge,
    native_resolution,
    pan_and_scan,
    single_tile,
)
from edge_mllm.picture.tile_plans.longest_edge import MAX_LONGEST_EDGE
from edge_mllm.picture.tile_plans.steps import MAX_TILES, Box, Grid, Pad, Resize, Step, TilePlan

__all__ = [
    "MAX_LONGEST_EDGE",
    "MAX_SIDE",
    "MAX_TILES",
    "Box",
    "Grid",
    "Pad",
    "Resize",
    "Step",
    "TilePlan",
    "fit_tiler",
    "fit_tokens",
    "low_detail",
    "plan_tiles",
]

LOW_DETAIL_TOKENS = 256
"""Most visual tokens of a picture at low detail where there are no tiles; as many as one tile usually has."""

MAX_SIDE = 65_536
"""Longest side, in pixels, that a plan is made for."""

_Mechanism = tuple[Callable[[int, int, Any], TilePlan], Callable[[Any], Iterator[Tiler]]]
_MECHANISMS: dict[str, _Mechanism] = {
    "longest_edge_grid": (longest_edge.plan, longest_edge.coarser),
    "aspect_grid": (aspect_grid.plan, aspect_grid.coarser),
    "native_resolution": (native_resolution.plan, native_resolution.coarser),
    "best_fit_grid": (best_fit.plan, best_fit.coarser),
    "single_tile": (single_tile.plan, single_tile.coarser),
    "pan_and_scan": (pan_and_scan.plan, pan_and_scan.coarser),
    "adaptive_slices": (adaptive_slices.plan, adaptive_slices.coarser),
}
"""A tiler's ``kind`` -> how it plans a picture, and its coarser settings, ending with the coarsest."""


def plan_tiles(width: int, height: int, tiler: Tiler) -> TilePlan:
    """Plan the tiles of a picture.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        tiler: The model's mechanism with its numbers.

    Raises:
        ImageError: The picture has no pixels, a side too long to plan for, or would need too many tiles.
    """
    if width < 1 or height < 1:
        raise ImageError(f"of {width}x{height} pixels", "it has no pixels")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"of {width}x{height} pixels", f"no side may be longer than {MAX_SIDE} pixels")
    plan, _ = _MECHANISMS[tiler.kind]
    return plan(width, height, tiler)


def fit_tiler(tiler: Tiler, width: int, height: int, max_tiles: int) -> Tiler:
    """The model's own tiler, made coarser until the picture needs at most ``max_tiles`` tiles.

    Every answer is a setting the model's own processor offers, and the coarsest one is taken where none fits.

    Raises:
        SettingError: ``max_tiles`` is below one.
    """
    if max_tiles < 1:
        raise SettingError(f"at least one tile per picture is needed, {max_tiles} were allowed")
    return _coarser_until(tiler, width, height, lambda plan: plan.count <= max_tiles)


def fit_tokens(tiler: Tiler, size: tuple[int, int], max_tokens: int, tokens_per_tile: int) -> Tiler:
    """The model's own tiler, made coarser until a picture of this width and height needs at most ``max_tokens``.

    The coarsest setting is taken where none fits.
    """
    return _coarser_until(tiler, *size, lambda plan: plan.tokens(tokens_per_tile) <= max_tokens)


def low_detail(tiler: Tiler, width: int, height: int) -> Tiler:
    """One tile; without tiles, at most :data:`LOW_DETAIL_TOKENS` visual tokens."""
    if isinstance(tiler, NativeResolution):
        return native_resolution.at_most(tiler, LOW_DETAIL_TOKENS)
    return fit_tiler(tiler, width, height, 1)


def _coarser_until(tiler: Tiler, width: int, height: int, fits: Callable[[TilePlan], bool]) -> Tiler:
    candidate = tiler
    for candidate in _MECHANISMS[tiler.kind][1](tiler):
        if fits(plan_tiles(width, height, candidate)):
            break
    return candidate
