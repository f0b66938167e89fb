"""The choice of a mixture, against trying everything."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mllm_quant.recipes.mixture import Choice, Mixture, MixtureError, combine, front, pick, spread

_CHOICE = st.builds(Choice, st.text("abc", max_size=2), st.integers(1, 50), st.integers(0, 20).map(float))
_PARTS = st.lists(st.lists(_CHOICE, min_size=1, max_size=4), min_size=1, max_size=4)


def _everything(parts: list[list[Choice]]) -> list[Mixture[str]]:
    return [Mixture({str(n): choice for n, choice in enumerate(row)}) for row in itertools.product(*parts)]


@settings(deadline=None, max_examples=60)
@given(_PARTS, st.integers(1, 200), st.integers(0, 80))
def test_nothing_better_is_overlooked(parts: list[list[Choice]], max_bytes: int, max_loss: int) -> None:
    found = combine({str(n): choices for n, choices in enumerate(parts)})
    everything = _everything(parts)
    small = [item for item in everything if item.bytes <= max_bytes]
    if small:
        best = pick(found, max_bytes=max_bytes, max_loss=None)
        assert best.bytes <= max_bytes and best.loss == min(item.loss for item in small)
    good = [item for item in everything if item.loss <= max_loss]
    if good:
        cheapest = pick(found, max_bytes=None, max_loss=float(max_loss))
        assert cheapest.loss <= max_loss and cheapest.bytes == min(item.bytes for item in good)
    both = [item for item in small if item.loss <= max_loss]
    if not both:
        with pytest.raises(MixtureError):
            pick(found, max_bytes=max_bytes, max_loss=float(max_loss))


def test_a_front_falls_and_is_thinned_evenly() -> None:
    mixtures = [Mixture({"a": Choice(str(n), n, 100.0 - n)}) for n in range(1, 101)]
    worse = [Mixture({"a": Choice("worse", 50, 90.0)})]
    assert front([*worse, *mixtures]) == mixtures
    few = spread(mixtures, 5)
    assert [item.bytes for item in few] == [1, 26, 50, 75, 100]
    assert spread(mixtures[:3], 5) == mixtures[:3]


def test_a_limit_that_cannot_be_kept_says_what_can_be_had() -> None:
    mixtures = [Mixture({"a": Choice("x", 10, 0.5)}), Mixture({"a": Choice("y", 20, 0.1)})]
    with pytest.raises(MixtureError, match=r"nothing fits into 5 bytes; the smallest mixture has 10 \(loss 0.5000\)"):
        pick(mixtures, max_bytes=5, max_loss=None)
    with pytest.raises(MixtureError, match=r"no mixture within 15 bytes loses at most 0.2 nats; .*0.5000 with 10"):
        pick(mixtures, max_bytes=15, max_loss=0.2)
