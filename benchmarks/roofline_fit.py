"""Fit the lines of a device profile to measured stages; ``plan`` reads the result and never fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_mllm.costs.roofline import FLOATS, Line, Work
from edge_mllm.errors import SettingError
from edge_mllm.machine.peaks import Peaks

_WORST_CONDITION = 30.0
"""Of the fit's columns, each scaled to 1 at most: beyond it a noise of 3 % is as large as a term."""
_SCORE = 256.0
"""Operations of a score and its value in a head of 64; as many bytes have their key and value in half precision."""
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """A stage that was measured once."""

    work: Work
    seconds: float


def fit(observations: Sequence[Observation], attention_share: float = 1.0) -> Line:
    """Fit a line with the smallest relative errors, all terms at or above zero.

    Terms that the observations cannot tell apart are given up one after the other: first attention has
    ``attention_share`` of the other rate, then the overhead is zero.

    Args:
        observations: Of one stage.
        attention_share: Rate of attention over the other rate, where it is not fitted.

    Raises:
        SettingError: there are no observations, or one has no work or took no time.
    """
    if not observations or any(o.work.amount <= 0 or o.seconds <= 0 for o in observations):
        raise SettingError("a fit needs observations with work and time")
    seconds = np.array([o.seconds for o in observations])
    amount, attention, count = (
        np.array([getattr(o.work, name) for o in observations]) / seconds for name in ("amount", "attention", "count")
    )
    together = amount + attention / attention_share
    terms = _solve(amount, attention, count)
    if terms is None:
        merged = _solve(together, count)  # one column can always be fitted
        assert merged is not None  # noqa: S101
        terms = np.array([merged[0], merged[0] / attention_share, merged[1]])
    errors = np.abs(np.stack([amount, attention, count], axis=1) @ terms - 1)
    return Line(
        rate=float(1 / terms[0]),
        attention_rate=float(1 / terms[1]),
        overhead=float(terms[2]),
        observations=len(seconds),
        worst=float(errors.max()),
    )


def _solve(*columns: FloatArray) -> FloatArray | None:
    """Seconds of one unit of each column, the last of which may be zero; None where they cannot be told apart."""
    for fitted in (columns, columns[:-1]):
        matrix = np.stack(fitted, axis=1)
        scale = matrix.max(axis=0)
        if len(matrix) < len(fitted) or scale.min() <= 0 or np.linalg.cond(matrix / scale) > _WORST_CONDITION:
            continue
        terms: FloatArray = np.linalg.lstsq(matrix / scale, np.ones(len(matrix)), rcond=None)[0] / scale
        if terms[: len(columns) - 1].min() > 0 and terms.min() >= 0:
            return np.append(terms, np.zeros(len(columns) - len(fitted)))
    return None


def fit_all(observations: Mapping[str, Iterable[Observation]], peaks: Peaks | None = None) -> dict[str, Line]:
    """Fit every stage; the machine's limits tell how much faster products of integers are than those of floats."""
    return {name: fit(list(found), attention_share(name, peaks)) for name, found in observations.items()}


def attention_share(line: str, peaks: Peaks | None) -> float:
    """What a line's attention rate is assumed to be, in its other rate, where measurements do not tell."""
    products = line.startswith(("tower/", "prefill/")) and line.rsplit("/", 1)[-1] not in FLOATS
    return (peaks.float32_ops_per_s / peaks.int8_ops_per_s if products and peaks is not None else 1.0) / _SCORE
