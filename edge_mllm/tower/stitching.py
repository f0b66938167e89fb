"""The tokens of all tiles of a picture as the rows that the decoder takes.

Without stitching that is tile after tile. With it, the tokens of the grid's tiles are laid out as one map of the whole
picture, what shows padding is cut off, a map that is too large is shrunk, and each row of it ends with the newline
embedding (Li et al., arXiv 2408.03326, section 3.2; ``pack_image_features`` in transformers). A plain map is the first
of these steps alone.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm.picture.tile_plan import TilePlan


def join_tiles(embeddings: FloatArray, plan: TilePlan, newline: FloatArray | None) -> FloatArray:
    """Rows of one picture in the order of the prompt's image tokens.

    Args:
        embeddings: float32 [tiles, tokens per tile, row_width], in the order of the plan's tiles; what a tower for any
            size gives passes through as one tile.
        plan: How the picture was tiled.
        newline: float32 [n_embd], needed where the plan stitches and is not plain.

    Returns:
        float32 [plan.tokens(tokens per tile), row_width].
    """
    width = embeddings.shape[-1]
    if plan.stitch is None:
        return embeddings.reshape(-1, width)
    ends = np.empty((0, width), np.float32) if plan.stitch.plain else _row_end(newline)
    if plan.count == 1:
        return np.concatenate([embeddings[0], ends])
    whole, tiles = (embeddings[:1], embeddings[1:]) if plan.global_first else (embeddings[-1:], embeddings[:-1])
    if not plan.has_global:
        whole, tiles = embeddings[:0], embeddings
    found = _with_ends(_window(tiles, plan), ends)
    parts = [whole.reshape(-1, width), found.reshape(-1, width)]
    return np.concatenate(parts if plan.global_first else parts[::-1])


def _window(tiles: FloatArray, plan: TilePlan) -> FloatArray:
    """The part of the map that shows the picture, at its final size: float32 [rows, columns, n_embd]."""
    _, tokens, width = tiles.shape
    side = math.isqrt(tokens)
    grid = tiles.reshape(plan.rows, plan.cols, side, side, width).transpose(0, 2, 1, 3, 4)
    whole = grid.reshape(plan.rows * side, plan.cols * side, width)
    part = plan.token_map(tokens)
    window = whole[part.top : part.top + part.rows, part.left : part.left + part.cols]
    return resize_bilinear(window, part.new_rows, part.new_cols) if part.shrunk else window


def _row_end(newline: FloatArray | None) -> FloatArray:
    assert newline is not None  # noqa: S101  (a bundle that needs one has one, which is checked when it is opened)
    return newline[None]


def _with_ends(window: FloatArray, ends: FloatArray) -> FloatArray:
    """Every row of the map with what ends it: one embedding or none."""
    return np.concatenate([window, np.broadcast_to(ends, (len(window), *ends.shape))], axis=1)


def resize_bilinear(values: FloatArray, rows: int, cols: int) -> FloatArray:
    """Resample a map as torch's ``interpolate(mode="bilinear")`` does: between centres, without smoothing first.

    Args:
        values: float32 [rows, columns, channels].
        rows: Of the result.
        cols: Of the result.
    """
    top, low, down = _neighbours(values.shape[0], rows)
    left, right, across = _neighbours(values.shape[1], cols)
    across, down = across[None, :, None], down[:, None, None]
    above, below = values[top], values[low]
    above = above[:, left] * (1 - across) + above[:, right] * across
    below = below[:, left] * (1 - across) + below[:, right] * across
    return above * (1 - down) + below * down


def _neighbours(size: int, new_size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """For each new place the two old ones it lies between and the weight of the second.

    As torch has it: the scale in float32, then one rounding for the product and the difference together.
    """
    scale = float(np.float32(size) / np.float32(new_size))
    source = np.maximum(scale * (np.arange(new_size) + 0.5) - 0.5, 0).astype(np.float32)
    first = np.minimum(source.astype(np.intp), size - 1)
    return first, np.minimum(first + 1, size - 1), source - first.astype(np.float32)
