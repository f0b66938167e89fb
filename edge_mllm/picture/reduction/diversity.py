"""Tokens that stand for the others: by the largest distances, or by a determinantal point process."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray, IntArray

Values = npt.NDArray[np.float64]
_BLOCK = 512
"""Rows compared with all others at once."""
_NOTHING = 1e-9
"""A gain below this is rounding: what is left lies in the span of what was taken."""


def unit_rows(rows: FloatArray) -> Values:
    """Rows of length one, float64 [n, width]; a row of zeros stays one."""
    values = rows.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    unit: Values = np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
    return unit


def farthest_points(unit: Values, count: int) -> IntArray:
    """Greedy max-min selection by cosine distance, as DivPrune does it (Alvar et al., arXiv 2503.02175).

    The first is the token whose nearest other one is farthest away; each next one is farthest from all taken.

    Args:
        unit: Rows of length one, float64 [n, width].
        count: How many to take, at most n.

    Returns:
        Places int64 [count] in the order in which they were taken; of equals the first.
    """
    chosen = np.empty(count, np.int64)
    chosen[0] = int(_nearest(unit).argmin())
    closest = unit @ unit[chosen[0]]  # cosine with the nearest one taken
    closest[chosen[0]] = np.inf
    for step in range(1, count):
        chosen[step] = int(closest.argmin())
        np.maximum(closest, unit @ unit[chosen[step]], out=closest)
        closest[chosen[: step + 1]] = np.inf
    return chosen


def relevance(unit: Values, query: FloatArray) -> Values:
    """How well each visual token fits a question, 0 to 1: mean cosine with the question's token embeddings.

    CDPruner (Zhang et al., arXiv 2506.10967) takes this for models whose tower has no text encoder beside it; scaled to
    the picture's smallest and largest.

    Args:
        unit: Visual tokens, float64 [n, width].
        query: Token embeddings float32 [m, width]; without any, every token fits as well.
    """
    if not len(query):
        return np.ones(len(unit))
    scores = unit @ unit_rows(query).mean(axis=0)
    low, high = float(scores.min()), float(scores.max())
    return np.ones(len(unit)) if high == low else (scores - low) / (high - low)


def determinantal(unit: Values, weights: Values, count: int) -> IntArray:
    """Greedy most likely subset of the process with kernel ``weights_i weights_j cos(i, j)`` (arXiv 2506.10967).

    Each step takes what raises the determinant most, by a Cholesky factor that grows with it (Chen et al., arXiv
    1709.05135). Where nothing raises it any more, the rest is taken by weight.

    Args:
        unit: Rows of length one, float64 [n, width].
        weights: Not negative, float64 [n].
        count: How many to take, at most n.

    Returns:
        Places int64 [count] in the order in which they were taken; of equals the first.
    """
    gains = weights**2 * (unit**2).sum(axis=1)
    factor = np.zeros((count, len(unit)))
    chosen: list[int] = []
    while len(chosen) < count:
        best = int(gains.argmax())
        if gains[best] <= _NOTHING:
            break
        step = len(chosen)
        kernel = weights[best] * weights * (unit @ unit[best])
        factor[step] = (kernel - factor[:step, best] @ factor[:step]) / np.sqrt(gains[best])
        gains -= factor[step] ** 2
        chosen.append(best)
        gains[chosen] = -np.inf
    left = np.setdiff1d(np.arange(len(unit)), chosen)
    rest = left[np.argsort(-weights[left], kind="stable")]
    return np.array([*chosen, *rest[: count - len(chosen)].tolist()], np.int64)


def _nearest(unit: Values) -> Values:
    """Of each row, the cosine with the most similar other one."""
    found = np.full(len(unit), -np.inf)
    for start in range(0, len(unit), _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit.T
        places = np.arange(len(cosines))
        cosines[places, start + places] = -np.inf
        found[start : start + _BLOCK] = cosines.max(axis=1)
    return found
