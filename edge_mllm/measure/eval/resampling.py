"""How sure a mean is, and whether two paired results differ: bootstrap and McNemar's exact test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
_CHUNK = 4_000_000
"""Values drawn at a time, to bound memory."""


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979; Efron and Tibshirani 1993, chapter 13).

    For paired results pass the differences question by question; the pairs are then resampled together.
    """
    data = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    per_chunk = max(1, _CHUNK // len(data))
    means = [
        data[rng.integers(0, len(data), size=(min(per_chunk, resamples - start), len(data)))].mean(axis=1)
        for start in range(0, resamples, per_chunk)
    ]
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return float(low), float(high)


def mcnemar_exact(lost: int, won: int) -> float:
    """Two-sided exact p-value of McNemar's test (1947) from the two counts of discordant pairs.

    Under the null hypothesis each discordant pair is a fair coin: p = 2 P(X <= min) for X ~ Binomial(lost + won, 1/2),
    at most 1.
    """
    total = lost + won
    tail = sum(math.comb(total, k) for k in range(min(lost, won) + 1))
    return min(1.0, float(2 * tail / 2**total))
