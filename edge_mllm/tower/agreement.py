"""How far another library's embeddings may lie from the default one's.

The tolerances are those that docs/verify.md and docs/npu.md write down for towers.
"""

from __future__ import annotations

import numpy as np

from edge_mllm.arrays import FloatArray

_EXACT = 0.99999
"""Least cosine of every visual token, for a tower that is not quantised."""
_LEAST_MEAN = {"fp16": 0.999}
_LEAST_QUANTISED = 0.98
"""Least mean cosine of visual tokens, as an export asks of a quantised tower."""


def disagreement(ours: FloatArray, theirs: FloatArray, width: int, precision: str) -> str:
    """Why embeddings may not take the place of the default library's; empty where they may.

    Args:
        ours: The default's, float32 [..., row_width].
        theirs: Of the same tile, of the same shape.
        width: Values of an embedding (n_embd): what goes to each layer of a decoder is compared by itself.
        precision: Vision recipe of the default's tower.
    """
    found = _cosines(ours.reshape(-1, width), theirs.reshape(-1, width))
    if precision == "fp32":
        least, kind, limit = float(found.min()), "least", _EXACT
    else:
        least, kind, limit = float(found.mean()), "mean", _LEAST_MEAN.get(precision, _LEAST_QUANTISED)
    if least >= limit:
        return ""
    return f"its embeddings have a {kind} cosine of {least:.5f} with those of ort, it must be {limit:g}"


def _cosines(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """Of rows float32 [rows, width]; rows without a direction agree with each other alone."""
    norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    same = (ours == theirs).all(axis=-1)
    cosines: FloatArray = np.where(norms > 0, (ours * theirs).sum(-1) / np.where(norms > 0, norms, 1), same)
    return cosines
