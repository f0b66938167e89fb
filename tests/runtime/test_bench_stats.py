from __future__ import annotations

import numpy as np
import pytest

from edge_mllm.errors import SettingError
from edge_mllm.measure.bench.stats import ratio_of_medians, summarise


def test_a_summary_of_known_numbers() -> None:
    summary = summarise([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (summary.n, summary.median, summary.q1, summary.q3) == (5, 3.0, 2.0, 4.0)
    assert (summary.mad, summary.minimum, summary.maximum) == (1.0, 1.0, 5.0)
    assert summary.spread == pytest.approx(2 / 3)


def test_one_outlier_does_not_move_the_median() -> None:
    assert summarise([1.0, 1.0, 1.0, 1.0, 100.0]).median == 1.0


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [float("inf")]])
def test_what_cannot_be_summarised_is_refused(samples: list[float]) -> None:
    with pytest.raises(SettingError):
        summarise(samples)


def test_paired_noise_does_not_widen_the_interval() -> None:
    """The machine is three times slower in some rounds, for both: the ratio stays near 0.8."""
    rng = np.random.default_rng(1)
    machine = rng.choice([1.0, 3.0], size=40)
    a = machine * rng.normal(1.0, 0.01, 40)
    b = 0.8 * machine * rng.normal(1.0, 0.01, 40)
    paired = ratio_of_medians(a.tolist(), b.tolist())
    shuffled = ratio_of_medians(a.tolist(), rng.permutation(b).tolist())
    assert paired.low < 0.8 < paired.high
    assert paired.decided
    assert paired.high - paired.low < 0.1 < shuffled.high - shuffled.low


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for seed in range(100):
        a, b = rng.lognormal(0, 0.1, 25), 1.3 * rng.lognormal(0, 0.1, 25)
        found = ratio_of_medians(a.tolist(), b.tolist(), resamples=500, seed=seed)
        inside += found.low <= 1.3 <= found.high
    assert inside >= 85


def test_equal_samples_are_undecided() -> None:
    found = ratio_of_medians([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.ratio, found.low, found.high) == (1.0, 1.0, 1.0)
    assert not found.decided


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_ratios_of_unpaired_or_non_positive_samples_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(SettingError):
        ratio_of_medians(a, b)
