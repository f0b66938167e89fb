"""Tiles that need not be encoded, found on their pixels: those of one colour, and those that repeat an earlier one.

A tile of one colour still tells a model that there is nothing; whether it is missed is measured, not known.
"""

from __future__ import annotations

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm.bundle.spec import ImageSpec
from edge_mllm.errors import SettingError
from edge_mllm.picture.reduction.spec import TokenReduction
from edge_mllm.picture.tile_plan import TilePlan
from edge_mllm.picture.tiling import Pixels, each_tile


def skipped_tiles(rgb: Pixels, plan: TilePlan, image: ImageSpec, reduction: TokenReduction) -> tuple[int, ...]:
    """Numbers of the plan's crops that can be left out, in order.

    The tile of the whole picture always stays, and without one the first tile does.

    Args:
        rgb: The picture, uint8 [height, width, 3] or an RGB image.
        plan: Its tiling.
        image: The model's image processing.
        reduction: Of pixels.

    Raises:
        SettingError: This model's pictures are not made of tiles that stand for themselves.
    """
    if plan.token_grid is not None or plan.stitch is not None:
        what = "are not cut into tiles" if plan.token_grid is not None else "are put together from all their tiles"
        raise SettingError(f"image reduction '{reduction.text}' leaves out tiles, but this model's pictures {what}")
    if plan.count == 1:
        return ()
    pixels = each_tile(rgb, plan, image)
    first = int(plan.has_global and plan.global_first)
    tiles = pixels[first : first + len(plan.crops)]
    step = np.array([image.rescale / deviation for deviation in image.std], np.float32)[:, None, None]
    limit = reduction.levels + 0.5  # between two levels: a normalised value is no whole number
    if reduction.method == "blank":
        found = [index for index, tile in enumerate(tiles) if _spread(tile, step) < limit]
    else:
        found = _repeated(tiles, step, limit)
    return tuple(found if plan.has_global or len(found) < len(tiles) else found[1:])


def _spread(tile: FloatArray, step: FloatArray) -> float:
    """Levels between the smallest and the largest value of a channel."""
    span = tile.max(axis=(1, 2), keepdims=True) - tile.min(axis=(1, 2), keepdims=True)
    return float((span / step).max())


def _repeated(tiles: list[FloatArray], step: FloatArray, limit: float) -> list[int]:
    kept: list[FloatArray] = []
    found = []
    for index, tile in enumerate(tiles):
        if any(float((np.abs(tile - other) / step).max()) < limit for other in kept):
            found.append(index)
        else:
            kept.append(tile)
    return found
