"""What reductions keep, on small arrays: counts, order, and the papers' algorithms against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge_mllm.bundle.spec import ImageSpec
from edge_mllm.bundle.tilers import BestFitGrid, LongestEdgeGrid, NativeResolution, Stitch
from edge_mllm.errors import SettingError
from edge_mllm.picture.reduction.areas import TokenArea, token_areas
from edge_mllm.picture.reduction.diversity import determinantal, farthest_points, relevance, unit_rows
from edge_mllm.picture.reduction.pooling import pool, weights
from edge_mllm.picture.reduction.spec import TokenReduction, reduction_of, share
from edge_mllm.picture.reduction.thinning import content_places, kept_tokens, thin_rows
from edge_mllm.picture.reduction.tiles import skipped_tiles
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm.tower.stitching import join_tiles

SQUARE = TokenArea(rows=6, cols=6)
LINED = TokenArea(rows=4, cols=5, line_ends=True)
END = TokenArea(rows=1, cols=0, line_ends=True)
LAYOUTS = {
    "tiles": (SQUARE, SQUARE, SQUARE),
    "native": (TokenArea(rows=3, cols=7),),
    "stitched": (SQUARE, LINED),
    "one stitched": (SQUARE, END),
    "list": (TokenArea(rows=1, cols=10, gridded=False),),
}
METHODS = ("uniform", "random", "pool", "diverse", "diverse-tile", "query", "query-tile")


def rows_of(areas, seed=0, width=16):
    return np.random.default_rng(seed).normal(size=(sum(area.tokens for area in areas), width)).astype(np.float32)


def kept_of(text, areas, seed=0):
    question = np.random.default_rng(seed + 1).normal(size=(5, 16)).astype(np.float32)
    reduction = TokenReduction.parse(text)
    rows = rows_of(areas, seed)
    kept = kept_tokens(reduction, areas, rows, question if reduction.needs_query else None)
    return reduction, rows, kept


@pytest.mark.parametrize("ratio", ["3/4", "1/2", "1/4", "0.1", "0.001", "0.99"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_counts_are_known_before_and_order_is_kept(layout, method, ratio):
    areas = LAYOUTS[layout]
    reduction, rows, kept = kept_of(f"{method}:{ratio}", areas)
    assert kept.dtype == np.int64 and len(kept) == reduction.count(areas)
    assert (np.diff(kept) > 0).all() and kept[0] >= 0 and kept[-1] < len(rows)
    given = thin_rows(reduction, areas, rows, kept)
    assert given.dtype == np.float32 and given.shape == (len(kept), 16)
    if method != "pool":
        np.testing.assert_array_equal(given, rows[kept])
    again = kept_of(f"{method}:{ratio}", areas)[2]
    np.testing.assert_array_equal(kept, again)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ratio", [0.75, 0.5, 0.25])
def test_every_tile_or_the_picture_keeps_its_share(method, ratio):
    areas = LAYOUTS["tiles"]
    reduction, _, kept = kept_of(f"{method}:{ratio}", areas)
    per_tile = np.bincount(kept // 36, minlength=3)
    if method == "pool":
        assert (per_tile == share(6, ratio**0.5) ** 2).all()
    elif reduction.per_picture:
        assert per_tile.sum() == 108 * ratio
    else:
        assert (per_tile == 36 * ratio).all()


def test_a_picture_wide_share_goes_where_the_differences_are():
    areas = LAYOUTS["tiles"]
    rows = rows_of(areas)
    rows[36:72] = rows[36]  # a tile that shows one thing only
    kept = kept_tokens(TokenReduction.parse("diverse:1/4"), areas, rows)
    assert np.bincount(kept // 36, minlength=3).tolist()[1] <= 1
    assert np.bincount(kept_tokens(TokenReduction.parse("diverse-tile:1/4"), areas, rows) // 36).tolist() == [9, 9, 9]


@pytest.mark.parametrize("method", METHODS)
def test_line_ends_stay(method):
    areas = LAYOUTS["stitched"]
    reduction, rows, kept = kept_of(f"{method}:1/4", areas)
    lines = 36 + np.arange(4) * 6 + 5
    given = thin_rows(reduction, areas, rows, kept)
    if method == "pool":  # fewer rows, each with its end
        smaller = LINED.pooled(0.25)
        assert (smaller.rows, smaller.cols, reduction.count(areas)) == (2, 3, 9 + 8)
        np.testing.assert_array_equal(given[[9 + 3, 9 + 7]], rows[lines[:2]])
        assert np.isin(kept[[9 + 3, 9 + 7]], lines).all()
    else:
        assert np.isin(lines, kept).all()
        assert len(kept) == 4 + (14 if reduction.per_picture else 9 + 5)


def test_uniform_and_random():
    one = (TokenArea(rows=1, cols=8),)
    assert kept_tokens(TokenReduction.parse("uniform:1/2"), one).tolist() == [1, 3, 5, 7]
    assert kept_tokens(TokenReduction.parse("uniform:1/4"), one).tolist() == [2, 6]
    assert kept_tokens(TokenReduction.parse("uniform:1/8"), one).tolist() == [4]
    drawn = [tuple(kept_tokens(TokenReduction.parse(f"random:1/2:{seed}"), LAYOUTS["tiles"])) for seed in range(5)]
    assert len(set(drawn)) == 5
    first, second = np.array(drawn[0])[:18], np.array(drawn[0])[18:36] - 36
    assert first.tolist() != second.tolist()  # every tile draws for itself


@pytest.mark.parametrize("seed", range(5))
def test_farthest_points_are_those_of_brute_force(seed):
    unit = unit_rows(np.random.default_rng(seed).normal(size=(14, 6)).astype(np.float32))
    distance = 1 - unit @ unit.T
    nearest = [min(distance[i, j] for j in range(14) if j != i) for i in range(14)]
    expected = [int(np.argmax(nearest))]
    while len(expected) < 9:
        rest = [i for i in range(14) if i not in expected]
        expected.append(max(rest, key=lambda i: min(distance[i, j] for j in expected)))
    assert farthest_points(unit, 9).tolist() == expected
    assert sorted(farthest_points(unit, 14)) == list(range(14))


def test_farthest_points_of_many_blocks_and_of_equal_rows():
    unit = unit_rows(np.random.default_rng(0).normal(size=(1100, 5)).astype(np.float32))
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    assert farthest_points(unit, 1)[0] == cosine.max(axis=1).argmin()
    same = np.tile(unit[:1], (6, 1))
    assert sorted(farthest_points(same, 6)) == list(range(6))
    assert farthest_points(np.zeros((1, 5)), 1).tolist() == [0]


@pytest.mark.parametrize("seed", range(5))
def test_the_determinantal_process_is_that_of_brute_force(seed):
    """Every step raises the determinant most, and the whole is near the best of all subsets."""
    draw = np.random.default_rng(seed)
    unit = unit_rows(draw.normal(size=(9, 12)).astype(np.float32))
    importance = draw.uniform(0.1, 1, 9)
    kernel = importance[:, None] * (unit @ unit.T) * importance

    def volume(places):
        return np.linalg.det(kernel[np.ix_(places, places)])

    expected: list[int] = []
    while len(expected) < 4:
        rest = [i for i in range(9) if i not in expected]
        expected.append(max(rest, key=lambda i: volume([*expected, i])))
    found = determinantal(unit, importance, 4).tolist()
    assert found == expected
    best = max(volume(list(places)) for places in itertools.combinations(range(9), 4))
    assert best / 24**2 <= volume(found) <= best * (1 + 1e-9)  # Civril and Magdon-Ismail 2009: at least 1/(k!)^2


def test_the_process_goes_on_where_nothing_new_is_left():
    unit = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    importance = np.array([1, 0.9, 0.8, 0.1, 0.7, 0.2])
    found = determinantal(unit, importance, 5)
    assert found.tolist() == [0, 1, 2, 4, 5]
    assert determinantal(unit, np.zeros(6), 2).tolist() == [0, 1]


def test_relevance():
    unit = unit_rows(np.array([[1, 0], [0, 1], [1, 1]], np.float32))
    found = relevance(unit, np.array([[3, 0], [5, 0]], np.float32))
    assert found == pytest.approx([1, 0, 2**-0.5])
    assert relevance(unit, np.zeros((0, 2), np.float32)).tolist() == [1, 1, 1]
    assert relevance(unit[[0, 0]], np.ones((1, 2), np.float32)).tolist() == [1, 1]


def test_the_question_decides():
    areas = (TokenArea(rows=2, cols=4),)
    rows = np.eye(8, 16, dtype=np.float32)
    for asked in (1, 6):
        query = np.zeros((1, 16), np.float32)
        query[0, asked] = 1
        assert asked in kept_tokens(TokenReduction.parse("query:1/8"), areas, rows, query)


@pytest.mark.parametrize(("count", "fewer"), [(6, 3), (6, 4), (7, 3), (5, 5), (9, 1)])
def test_pooling_weights(count, fewer):
    found = weights(count, fewer)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0) * count / fewer, 1, rtol=1e-6)  # nothing is lost


def test_pooling_by_hand():
    assert weights(3, 2) == pytest.approx(np.array([[2, 1, 0], [0, 1, 2]]) / 3)
    area, smaller = TokenArea(rows=4, cols=2, line_ends=True), TokenArea(rows=2, cols=1, line_ends=True)
    rows = np.array([[1], [3], [90], [5], [7], [91], [2], [2], [92], [4], [8], [93]], np.float32)
    assert pool(rows, area, smaller)[:, 0].tolist() == [4, 90, 4, 91]
    assert pool(rows, area, area).tolist() == rows.tolist()


def test_what_can_be_asked_for():
    assert TokenReduction.parse("diverse:1/4") == TokenReduction(method="diverse", ratio=0.25)
    assert TokenReduction.parse("pool") == TokenReduction(method="pool", ratio=0.5)
    assert TokenReduction.parse("random:0.5:7") == TokenReduction(method="random", ratio=0.5, seed=7)
    assert TokenReduction.parse("blank") == TokenReduction(method="blank", levels=8)
    assert TokenReduction.parse("duplicates:0") == TokenReduction(method="duplicates", levels=0)
    for text in ("uniform:0.25", "random:0.5:7", "blank:3"):
        assert TokenReduction.parse(text).text == text
        assert reduction_of(text) == reduction_of(TokenReduction.parse(text))
    assert reduction_of(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "best",
        "uniform:0",
        "uniform:1.5",
        "uniform:-1",
        "uniform:1/0",
        "uniform:nan",
        "uniform:1/2:3",
        "pool:x",
        "random:1/2:-1",
        "random:1/2:3:4",
        "blank:256",
        "blank:1/2",
        "diverse:",
        "diverse:1//2",
    ],
)
def test_what_cannot(text):
    with pytest.raises(SettingError, match=r"reduction|visual tokens|levels"):
        TokenReduction.parse(text)


def test_areas_are_the_tokens_in_order():
    tiled = plan_tiles(90, 60, LongestEdgeGrid(longest_edge=96, tile=32))
    assert token_areas(tiled, 4) == (TokenArea(rows=2, cols=2),) * tiled.count
    native = plan_tiles(64, 96, NativeResolution(unit=16, min_pixels=256, max_pixels=10**6))
    assert token_areas(native, 1) == (TokenArea(rows=6, cols=4),)
    stitched = BestFitGrid(tile=32, grids=((1, 2), (2, 1), (2, 2)), stitch=Stitch(max_tiles=None))
    plan = plan_tiles(100, 40, stitched)
    areas = token_areas(plan, 16)
    assert areas[0] == TokenArea(rows=4, cols=4) and areas[1].line_ends and len(areas) == 2
    assert sum(area.tokens for area in areas) == plan.tokens(16)
    assert not token_areas(tiled, 5)[0].gridded
    assert content_places(LINED).tolist() == [row * 6 + col for row in range(4) for col in range(5)]


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (33, 31), (200, 25)])
@pytest.mark.parametrize("grids", [((1, 2), (2, 1), (2, 2)), ()])
def test_line_ends_are_where_stitching_puts_them(size, grids):
    plan = plan_tiles(*size, BestFitGrid(tile=32, grids=grids, stitch=Stitch(max_tiles=2)))
    newline = np.full(3, -1, np.float32)
    joined = join_tiles(np.ones((plan.count, 16, 3), np.float32), plan, newline)
    areas, found, start = token_areas(plan, 16), [], 0
    for area in areas:
        found += (start + content_places(area)).tolist()
        start += area.tokens
    assert start == len(joined)
    assert np.flatnonzero(joined[:, 0] > 0).tolist() == found


IMAGE = ImageSpec(
    tiler=LongestEdgeGrid(longest_edge=96, tile=32),
    resample="lanczos",
    rescale=1 / 255,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)


def sheet():
    """Nine tiles of 32: white, but for the first (noise), the fifth (a faint dot) and the ninth (as the first)."""
    picture = np.full((96, 96, 3), 255, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    picture[:32, :32] = picture[64:, 64:] = noise
    picture[48, 48] = 245
    return picture


def test_tiles_that_are_left_out():
    picture = sheet()
    plan = plan_tiles(96, 96, IMAGE.tiler)
    blank = [1, 2, 3, 5, 6, 7]
    assert skipped_tiles(picture, plan, IMAGE, TokenReduction.parse("blank:9")) == tuple(blank)
    assert skipped_tiles(picture, plan, IMAGE, TokenReduction.parse("blank:10")) == (1, 2, 3, 4, 5, 6, 7)
    assert skipped_tiles(picture, plan, IMAGE, TokenReduction.parse("duplicates:0")) == (2, 3, 5, 6, 7, 8)
    picture[66, 66] ^= 1
    assert skipped_tiles(picture, plan, IMAGE, TokenReduction.parse("duplicates:0")) == (2, 3, 5, 6, 7)
    assert skipped_tiles(picture, plan, IMAGE, TokenReduction.parse("duplicates:1")) == (2, 3, 5, 6, 7, 8)
    white = np.full((96, 96, 3), 255, np.uint8)
    assert skipped_tiles(white, plan, IMAGE, TokenReduction.parse("blank")) == tuple(range(9))


def test_models_without_tiles_refuse():
    picture = sheet()
    for tiler in (
        NativeResolution(unit=16, min_pixels=256, max_pixels=10**6),
        BestFitGrid(tile=32, grids=((2, 2),), stitch=Stitch()),
    ):
        with pytest.raises(SettingError, match="leaves out tiles, but this model's pictures"):
            skipped_tiles(picture, plan_tiles(96, 96, tiler), IMAGE, TokenReduction.parse("blank"))
