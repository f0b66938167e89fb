"""Codes that are chosen with the layer's input give a nearer output than the nearest codes."""

from __future__ import annotations

import numpy as np
import pytest

from edge_mllm.arrays import FloatArray
from edge_mllm_quant.weights.rounding import Grid, refine_codes

LEVELS = np.arange(-8, 8, dtype=np.float32)


def _layer(seed: int, columns: int = 160) -> tuple[FloatArray, Grid, FloatArray]:
    """Weights, a grid of one scale per row and 32 columns, and correlated inputs [samples, columns]."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(24, columns)).astype(np.float32)
    blocks = np.abs(weights.reshape(24, -1, 32)).max(-1) / 7.5
    mix = random.normal(size=(columns // 4, columns)) + 0.3 * random.normal(size=(1, columns))
    inputs = random.normal(size=(1000, columns // 4)) @ mix + 0.2 * random.normal(size=(1000, columns))
    return weights, Grid(np.repeat(blocks, 32, axis=1).astype(np.float32), None, LEVELS), inputs.astype(np.float32)


def _nearest(weights: FloatArray, grid: Grid) -> FloatArray:
    codes = np.clip(np.rint(weights / grid.scale), -8, 7)
    return grid.scale * codes


@pytest.mark.parametrize("seed", [0, 1])
def test_output_error_is_far_below_that_of_the_nearest_codes(seed: int) -> None:
    weights, grid, inputs = _layer(seed)
    codes = refine_codes(weights, grid, inputs.T @ inputs / len(inputs))
    fresh = inputs[::-1] * 0.9
    ours = np.square(fresh @ (grid.values(codes) - weights).T).mean()
    nearest = np.square(fresh @ (_nearest(weights, grid) - weights).T).mean()
    assert ours < 0.4 * nearest


def test_without_correlation_the_nearest_code_is_right() -> None:
    weights, grid, _ = _layer(2)
    codes = refine_codes(weights, grid, np.eye(weights.shape[1], dtype=np.float32))
    assert np.allclose(grid.values(codes), _nearest(weights, grid))


def test_offsets_zero_scales_and_dead_columns() -> None:
    weights, grid, inputs = _layer(3)
    inputs[:, 5] = 0
    grid.scale[0] = 0
    shifted = Grid(grid.scale, np.full_like(grid.scale, -0.1), np.arange(16, dtype=np.float32))
    values = shifted.values(refine_codes(weights, shifted, inputs.T @ inputs / len(inputs)))
    assert np.isfinite(values).all()
    assert (values >= np.float32(-0.1)).all() and np.allclose(values[0], -0.1)
    everything_dead = refine_codes(weights, grid, np.zeros((160, 160), np.float32))
    assert np.allclose(grid.values(everything_dead)[1:], _nearest(weights, grid)[1:])
