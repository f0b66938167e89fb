"""A picture as the list of patches that a tower for any size takes, and where each patch lies.

Patches that become one visual token stand together: the order is (token row, token column, row in the token, column
in the token), as in the reference image processors and towers (Wang et al., arXiv 2409.12191, section 2.1).
"""

from __future__ import annotations

import numpy as np

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.bundle.spec import PatchInput


def pack_patches(pixels: FloatArray, spec: PatchInput) -> FloatArray:
    """Cut a picture into patches.

    Args:
        pixels: float32 [3, height, width]; both sides are whole visual tokens.
        spec: Sizes of patches and tokens.

    Returns:
        float32 [patches, 3 * frames * patch * patch], the values of a patch in the order channel, frame, row, column.
    """
    channels, height, width = pixels.shape
    side, merge = spec.patch, spec.merge
    rows, cols = height // (side * merge), width // (side * merge)
    blocks = pixels.reshape(channels, rows, merge, side, cols, merge, side).transpose(1, 4, 2, 5, 0, 3, 6)
    repeated = np.broadcast_to(blocks[..., None, :, :], (*blocks.shape[:5], spec.frames, side, side))
    return repeated.reshape(rows * cols * merge * merge, -1)


def patch_positions(token_grid: tuple[int, int], spec: PatchInput) -> IntArray:
    """Row and column of every patch in the picture's grid of patches: int64 [patches, 2], in the order of the list.

    Args:
        token_grid: Rows and columns of visual tokens.
        spec: Sizes of patches and tokens.
    """
    rows, cols = token_grid
    merge = spec.merge
    grid = np.indices((rows * merge, cols * merge)).reshape(2, rows, merge, cols, merge)
    return np.ascontiguousarray(grid.transpose(1, 3, 2, 4, 0).reshape(-1, 2), np.int64)


def patch_windows(token_grid: tuple[int, int], spec: PatchInput) -> tuple[IntArray, IntArray]:
    """Which patches lie in which window of ``spec.window`` x ``spec.window`` patches, counted row by row.

    Args:
        token_grid: Rows and columns of visual tokens.
        spec: Sizes of patches, tokens and windows.

    Returns:
        The patches of each window, int64 [windows, window * window]: numbers in the list of patches, in its order, and
        -1 behind them where the picture's edge cuts the window; and the place of each patch in that table when it is
        read row by row, int64 [patches].
    """
    side = spec.window or 0
    row, col = (patch_positions(token_grid, spec) // side).T
    number = row * (int(col[-1]) + 1) + col
    order = np.argsort(number, kind="stable")
    counts = np.bincount(number)
    first = np.cumsum(counts) - counts
    places = np.empty_like(order)
    places[order] = number[order] * side**2 + np.arange(len(order)) - first[number[order]]
    windows = np.full((len(counts), side**2), -1, np.int64)
    windows.reshape(-1)[places] = np.arange(len(places))
    return windows, places.astype(np.int64)
