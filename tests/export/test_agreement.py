"""Numbers of agreement, on arrays whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_mllm_export.verify.agreement import compare_embeddings, compare_logits, join_greedy, kl_divergence, margins


def _logits(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_kl_of_known_distributions() -> None:
    p, q = _logits([math.log(0.75), math.log(0.25)]), _logits([0.0, 0.0])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_divergence(p, q)[0] == pytest.approx(expected, rel=1e-6)
    assert kl_divergence(p, p + 7)[0] == pytest.approx(0.0, abs=1e-9)


def test_top1_counts_close_calls_as_agreement() -> None:
    reference = _logits([1.0, 0.0], [1.0, 0.9995], [0.0, 3.0])
    ours = _logits([0.0, 1.0], [0.9, 1.0], [0.0, 3.0])
    found = compare_logits(reference, ours)
    assert (found.positions, found.close_calls) == (3, 1)
    assert found.top1 == pytest.approx(2 / 3)
    assert found.max_abs_difference == pytest.approx(1.0)


def test_margins_are_best_minus_second() -> None:
    np.testing.assert_allclose(margins(_logits([1.0, 5.0, 3.5], [2.0, 2.0, 0.0])), [1.5, 0.0])


def test_embeddings_of_known_error() -> None:
    reference = np.zeros((2, 1, 2), np.float32)
    reference[:, :, 0] = 1.0
    ours = reference.copy()
    ours[1, 0] = [0.0, 2.0]
    found = compare_embeddings(reference, ours)
    assert found.cosine_min == pytest.approx(0.0)
    assert found.cosine_mean == pytest.approx(0.5)
    assert found.relative_error_max == pytest.approx(math.sqrt(5))
    assert found.per_tile[0] == (pytest.approx(1.0), pytest.approx(0.0))


def test_greedy_runs_add_up() -> None:
    joined = join_greedy([(32, None, 1), (32, 5, 0)])
    assert (joined.tokens, joined.same, joined.forced) == (64, 37, 1)
    assert joined.first_differences == (None, 5)
