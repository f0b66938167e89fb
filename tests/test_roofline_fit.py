"""Lines of a device profile fitted to measured stages, as benchmarks/plan_error.py does it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_mllm.costs.roofline import Work
from edge_mllm.errors import SettingError
from edge_mllm.machine.peaks import Peaks

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from roofline_fit import Observation, attention_share, fit


def seen(amount: float, count: float, seconds: float, attention: float = 0.0) -> Observation:
    return Observation(Work(amount, count, attention), seconds)


def test_a_fit_finds_rate_and_overhead() -> None:
    found = fit([seen(w, c, w / 2e9 + 0.003 * c) for w, c in ((1e9, 1), (5e9, 2), (3e10, 3), (2e8, 1))])
    assert found.rate == found.attention_rate == pytest.approx(2e9, rel=1e-6)
    assert found.overhead == pytest.approx(0.003, rel=1e-6)
    assert found.worst < 1e-6


def test_a_fit_tells_attention_from_the_rest_where_its_share_differs() -> None:
    works = [(tokens * 1e6 * size, tokens**2 * 1e3 * size) for size in (1, 3) for tokens in (100, 1000)]
    found = fit([seen(w, 1, w / 5e9 + a / 4e8 + 0.02, a) for w, a in works], attention_share=0.9)
    assert found.rate == pytest.approx(5e9, rel=1e-6)
    assert found.attention_rate == pytest.approx(4e8, rel=1e-6)
    assert found.overhead == pytest.approx(0.02, rel=1e-6)


def test_attention_that_is_always_the_same_share_gets_the_assumed_rate() -> None:
    """Two towers with 0.22 and 0.19 of attention: noise would be taken for attention."""
    works = [
        (1e9 * tiles * size, share * 1e9 * tiles * size) for size, share in ((1, 0.22), (4, 0.19)) for tiles in (1, 9)
    ]
    found = fit([seen(w, 1, (w / 8e9 + a / 2e9) * 1.02, a) for w, a in works], attention_share=0.25)
    assert found.rate == pytest.approx(8e9, rel=0.03)
    assert found.attention_rate == pytest.approx(found.rate / 4)


def test_a_fit_is_steady_under_noise() -> None:
    noise = (0.97, 1.04, 1.01, 0.98, 1.03, 0.99)
    works = (1e8, 4e8, 1e9, 3e9, 1e10, 5e10)
    found = fit([seen(w, 1, (w / 1e10 + 0.02) * n) for w, n in zip(works, noise, strict=True)])
    assert found.rate == pytest.approx(1e10, rel=0.06)
    assert found.overhead == pytest.approx(0.02, rel=0.06)


@pytest.mark.parametrize("observations", [[(4e9, 2, 2.0)], [(4e9, 2, 2.0), (8e9, 4, 4.0)]])
def test_one_kind_of_work_gives_a_rate_alone(observations: list[tuple[float, float, float]]) -> None:
    found = fit([seen(*o) for o in observations])
    assert (found.rate, found.overhead) == (pytest.approx(2e9), 0.0)


def test_terms_never_become_negative() -> None:
    found = fit([seen(1e9, 1, 0.5), seen(2e9, 1, 1.5)])
    assert found.rate > 0
    assert found.overhead == 0.0
    assert found.worst > 0


@pytest.mark.parametrize("wrong", [[], [seen(0, 1, 1)], [seen(1, 1, 0)]])
def test_a_fit_of_nothing_is_refused(wrong: list[Observation]) -> None:
    with pytest.raises(SettingError):
        fit(wrong)


def test_products_of_floats_are_assumed_as_slow_as_the_machine_has_them() -> None:
    peaks = Peaks(threads=2, read_bytes_per_s=1, buffer_bytes=1, float32_ops_per_s=1e11, int8_ops_per_s=4e11)
    assert attention_share("tower/int8", peaks) == attention_share("prefill/gguf/q4_0", peaks) == 0.25 / 256
    assert attention_share("tower/fp32", peaks) == attention_share("decode/gguf/q4_0", peaks) == 1 / 256
    assert attention_share("tower/int8", None) == 1 / 256
