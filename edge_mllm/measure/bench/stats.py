"""Medians with a spread, and ratios of medians with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_mllm.errors import SettingError


@dataclass(frozen=True)
class Summary:
    """What a list of samples says, in the samples' own unit."""

    n: int
    median: float
    q1: float
    q3: float
    mad: float
    """Median absolute deviation from the median, unscaled."""
    minimum: float
    maximum: float

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median; 0 where the median is 0."""
        return (self.q3 - self.q1) / abs(self.median) if self.median else 0.0


@dataclass(frozen=True)
class Ratio:
    """``median(b) / median(a)`` with a bootstrap interval."""

    ratio: float
    low: float
    high: float
    n: int
    confidence: float

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.low > 1.0 or self.high < 1.0


def summarise(samples: Sequence[float]) -> Summary:
    """Summarise samples.

    Args:
        samples: at least one finite number.

    Raises:
        SettingError: there is nothing to summarise, or a sample is not a number.
    """
    values = _finite(samples)
    q1, median, q3 = (float(v) for v in np.quantile(values, (0.25, 0.5, 0.75)))
    return Summary(
        n=int(values.size),
        median=median,
        q1=q1,
        q3=q3,
        mad=float(np.median(np.abs(values - median))),
        minimum=float(values.min()),
        maximum=float(values.max()),
    )


def ratio_of_medians(
    a: Sequence[float],
    b: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Ratio:
    """Return ``median(b) / median(a)`` of paired samples with a percentile bootstrap interval.

    Sample i of both lists was taken in the same round, so rounds are resampled as pairs and a slow spell of the
    machine, which hits both, does not widen the interval (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13).

    Args:
        a: positive numbers.
        b: positive numbers, as many as ``a``.
        confidence: coverage of the interval, between 0 and 1.
        resamples: bootstrap draws.
        seed: of the draws, so that a report does not change when it is made again.

    Raises:
        SettingError: the lists differ in length, or hold something that is not a positive number.
    """
    left, right = _finite(a), _finite(b)
    if left.size != right.size:
        raise SettingError(f"paired samples differ in number: {left.size} and {right.size}")
    if min(left.min(), right.min()) <= 0:
        raise SettingError("a ratio needs positive samples")
    if not 0 < confidence < 1:
        raise SettingError(f"confidence must lie between 0 and 1, got {confidence}")
    draws = np.random.default_rng(seed).integers(0, left.size, size=(resamples, left.size))
    ratios = np.median(right[draws], axis=1) / np.median(left[draws], axis=1)
    tail = (1 - confidence) / 2
    low, high = (float(v) for v in np.quantile(ratios, (tail, 1 - tail)))
    return Ratio(float(np.median(right) / np.median(left)), low, high, int(left.size), confidence)


def _finite(samples: Sequence[float]) -> npt.NDArray[np.float64]:
    values = np.asarray(samples, dtype=np.float64)
    if values.size == 0:
        raise SettingError("no samples to summarise")
    if not np.isfinite(values).all():
        raise SettingError("a sample is not a finite number")
    return values
