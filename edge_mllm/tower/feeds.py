"""Inputs of a tower that takes tiles of any size, one run after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm.bundle.spec import PatchInput
from edge_mllm.errors import EngineError
from edge_mllm.picture.patches import patch_positions, patch_windows
from edge_mllm.picture.tile_plan import Grid

INPUT, POSITIONS, OUTPUT = "pixels", "positions", "embeddings"
WINDOWS, PLACES = "windows", "places"


def tile_feeds(pixels: FloatArray, grids: Sequence[Grid] | None, spec: PatchInput) -> list[dict[str, npt.NDArray[Any]]]:
    """Inputs of every run of a tower that takes any size, see :func:`patch_feeds`.

    Args:
        pixels: Packed patches of all tiles, float32 [patches, values of a patch].
        grids: Rows and columns of units of every tile.
        spec: How patches are made.

    Raises:
        EngineError: The pixels have another shape, or there are no tiles.
    """
    if not grids:
        raise EngineError("the tower takes tiles of any size, got 0 tiles and not their rows and columns")
    feeds, start = [], 0
    for number, (rows, cols) in enumerate(grids, 1):
        end = start + rows * cols * spec.merge**2 if number < len(grids) else len(pixels)
        feeds.append(patch_feeds(pixels[start:end], (rows, cols), spec))
        start = end
    return feeds


def patch_feeds(
    pixels: FloatArray, token_grid: tuple[int, int] | None, spec: PatchInput
) -> dict[str, npt.NDArray[Any]]:
    """Inputs of a tower for a picture, or one tile, of any size.

    Args:
        pixels: Packed patches float32 [patches, values of a patch].
        token_grid: Rows and columns of units.
        spec: How patches are made.

    Raises:
        EngineError: The pixels have another shape.
    """
    rows, cols = token_grid or (0, 0)
    patches = rows * cols * spec.merge**2
    if pixels.dtype != np.float32 or pixels.shape != (patches, spec.values) or not patches:
        raise EngineError(
            f"the tower takes float32 [{patches}, {spec.values}] for {rows}x{cols} "
            f"{'patches' if spec.pooled else 'visual tokens'}, "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )
    feeds: dict[str, npt.NDArray[Any]] = {
        INPUT: np.ascontiguousarray(pixels),
        POSITIONS: patch_positions((rows, cols), spec),
    }
    if spec.window is not None:
        feeds[WINDOWS], feeds[PLACES] = patch_windows((rows, cols), spec)
    return feeds
