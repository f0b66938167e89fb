"""Averages of neighbouring visual tokens: a smaller rectangle, every new token the mean of what it covers."""

from __future__ import annotations

import numpy as np

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.picture.reduction.areas import TokenArea


def pool(rows: FloatArray, area: TokenArea, smaller: TokenArea) -> FloatArray:
    """The tokens of one area, averaged; a token that two new ones share counts for each by its part.

    Args:
        rows: float32 [area.tokens, n_embd].
        area: How they lie.
        smaller: How the averages will lie.

    Returns:
        float32 [smaller.tokens, n_embd]. Line ends are taken over.
    """
    if area.cols == 0:
        return rows
    lines = rows.reshape(area.rows, area.width, -1)
    down, across = weights(area.rows, smaller.rows), weights(area.cols, smaller.cols)
    means = np.einsum("ar,bc,rcw->abw", down, across, lines[:, : area.cols], optimize=True)
    if area.line_ends:
        means = np.concatenate([means, lines[: smaller.rows, area.cols :]], axis=1)
    return np.ascontiguousarray(means.reshape(smaller.tokens, -1), np.float32)


def weights(count: int, fewer: int) -> FloatArray:
    """float32 [fewer, count]: how much of each old place lies in each new one, rows sum to one."""
    edges = np.arange(fewer + 1) * count / fewer
    places = np.arange(count)
    overlap = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    shares: FloatArray = (np.maximum(overlap, 0) * fewer / count).astype(np.float32)
    return shares


def centres(area: TokenArea, smaller: TokenArea) -> IntArray:
    """The old token in the middle of each new one, and a line end for each new row: int64 [smaller.tokens]."""
    if area.cols == 0:
        return np.arange(area.tokens, dtype=np.int64)
    down, across = _middles(area.rows, smaller.rows), _middles(area.cols, smaller.cols)
    if area.line_ends:
        across = np.append(across, area.cols)
    return (down[:, None] * area.width + across).reshape(-1).astype(np.int64)


def _middles(count: int, fewer: int) -> IntArray:
    return (2 * np.arange(fewer, dtype=np.int64) + 1) * count // (2 * fewer)
