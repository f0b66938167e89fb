"""Geometry alone, over many more sizes than pixels could be computed for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_settings import SETTINGS, Settings
from reference_geometry import geometry

from edge_mllm.bundle.tilers import LongestEdgeGrid
from edge_mllm.errors import ImageError, SettingError
from edge_mllm.picture.tile_plan import MAX_SIDE, fit_tiler, plan_tiles

SIDE = st.integers(1, 20_000)
TILER = SETTINGS[0].image.tiler


@pytest.mark.parametrize("published", [*SETTINGS, Settings("beyond", 6000, 512, 64)], ids=lambda s: s.name)
def test_grids_and_resizes_equal_the_reference(published: Settings) -> None:
    rng = random.Random(7)
    processor = published.reference()
    for _ in range(1500):
        size = (round(MAX_SIDE ** rng.random()), round(MAX_SIDE ** rng.random()))
        rows, cols, resizes = geometry(processor, published.longest_edge, published.tile, size)
        plan = plan_tiles(*size, published.image.tiler)
        steps = [*plan.steps, *(plan.global_steps or ())]
        assert (plan.rows, plan.cols) == (rows, cols), size
        assert [(step.width, step.height) for step in steps] == resizes, size


@given(width=SIDE, height=SIDE)
@settings(max_examples=200, deadline=None)
def test_crops_cover_the_canvas_without_overlap(width: int, height: int) -> None:
    plan = plan_tiles(width, height, TILER)
    canvas = plan.steps[-1]
    assert len(plan.crops) == plan.rows * plan.cols == plan.count - 1
    assert sum((right - left) * (low - top) for left, top, right, low in plan.crops) == canvas.width * canvas.height
    assert len(set(plan.crops)) == len(plan.crops)
    assert plan.crops == tuple(sorted(plan.crops, key=lambda box: (box[1], box[0])))
    assert max(box[2] for box in plan.crops) == canvas.width
    assert max(box[3] for box in plan.crops) == canvas.height
    assert plan.tile_size == (512, 512)


@given(width=SIDE, height=SIDE, most=st.integers(1, 17))
@settings(max_examples=200, deadline=None)
def test_a_fitted_tiler_keeps_the_limit_and_wastes_none_of_it(width: int, height: int, most: int) -> None:
    fitted = fit_tiler(TILER, width, height, most)
    count = plan_tiles(width, height, fitted).count
    assert count <= most
    assert (fitted.tile, fitted.longest_edge <= TILER.longest_edge) == (TILER.tile, True)
    if fitted.split and fitted != TILER:
        finer = LongestEdgeGrid(longest_edge=fitted.longest_edge + TILER.tile, tile=TILER.tile)
        assert plan_tiles(width, height, finer).count > most


def test_a_generous_limit_changes_nothing() -> None:
    assert fit_tiler(TILER, 640, 480, 13) is TILER
    assert plan_tiles(640, 480, TILER).count == 13
    assert plan_tiles(640, 480, fit_tiler(TILER, 640, 480, 12)).count == 10
    assert fit_tiler(TILER, 640, 480, 1) == LongestEdgeGrid(longest_edge=2048, tile=512, split=False)


def test_limits() -> None:
    with pytest.raises(SettingError, match="at least one tile"):
        fit_tiler(TILER, 10, 10, 0)
    for size in ((0, 5), (5, 0), (-1, 5)):
        with pytest.raises(ImageError, match="no pixels"):
            plan_tiles(*size, TILER)
    with pytest.raises(ImageError, match="longer than"):
        plan_tiles(MAX_SIDE + 1, 5, TILER)
    with pytest.raises(ImageError, match="would need 16384 tiles"):
        plan_tiles(100, 100, LongestEdgeGrid(longest_edge=1024, tile=8))
