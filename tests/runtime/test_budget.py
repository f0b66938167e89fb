import pytest

from edge_mllm.answer.budget import ImageBudget, choose_tilers, choose_within, image_budget
from edge_mllm.bundle.tilers import LongestEdgeGrid, NativeResolution
from edge_mllm.errors import PromptError, SettingError
from edge_mllm.picture.tile_plan import plan_tiles

TILER = LongestEdgeGrid(longest_edge=2048, tile=512)
PHOTO, TALL = (1024, 768), (300, 2400)


def counts(sizes, budget):
    tilers = choose_tilers(sizes, TILER, 64, budget)
    return [plan_tiles(*size, tiler).count for size, tiler in zip(sizes, tilers, strict=True)]


def test_auto_without_limit_is_the_models_own():
    assert choose_tilers([PHOTO, TALL], TILER, 64, ImageBudget()) == [TILER, TILER]


def test_low_is_one_tile():
    assert counts([PHOTO, TALL], ImageBudget(detail="low")) == [1, 1]


@pytest.mark.parametrize("limit", [64, 200, 320, 500, 700, 832, 5000])
def test_auto_keeps_the_limit(limit):
    found = counts([PHOTO], ImageBudget(max_image_tokens=limit))
    assert 1 <= found[0] <= max(1, limit // 64)
    assert found[0] <= 13


def test_limit_is_shared_and_small_pictures_go_first():
    own = counts([PHOTO, TALL, (10, 10)], ImageBudget())
    found = counts([PHOTO, TALL, (10, 10)], ImageBudget(max_image_tokens=64 * 12))
    assert sum(found) <= 12
    assert all(1 <= now <= before for now, before in zip(found, own, strict=True))
    assert sum(found) > 3


def test_limit_below_one_tile_a_picture_is_refused():
    with pytest.raises(PromptError, match="at least 128"):
        choose_tilers([PHOTO, TALL], TILER, 64, ImageBudget(max_image_tokens=127))


@pytest.mark.parametrize("detail", ["auto", "low"])
@pytest.mark.parametrize("limit", range(8, 40))
def test_a_long_picture_gets_what_it_needs_at_its_coarsest(limit, detail):
    """Its ratio is kept, so it needs seven tokens where an equal share would be four."""
    tiler = NativeResolution(unit=28, min_pixels=4 * 28**2, max_pixels=1280 * 28**2)
    sizes = [(300, 300), (100, 5000)]
    tilers = choose_tilers(sizes, tiler, 1, ImageBudget(detail=detail, max_image_tokens=limit))
    tokens = [plan_tiles(*size, each).tokens(1) for size, each in zip(sizes, tilers, strict=True)]
    assert sum(tokens) <= limit
    assert tokens[1] >= 7
    with pytest.raises(PromptError, match="at least 8 visual tokens") as caught:
        choose_tilers(sizes, tiler, 1, ImageBudget(detail=detail, max_image_tokens=7))
    assert "low'`" not in str(caught.value)


def test_high_is_all_or_an_error():
    assert counts([PHOTO], ImageBudget(detail="high", max_image_tokens=832)) == [13]
    with pytest.raises(PromptError, match=r"832.*use `detail='auto'`"):
        choose_tilers([PHOTO], TILER, 64, ImageBudget(detail="high", max_image_tokens=831))


@pytest.mark.parametrize("settings", [{"detail": "medium"}, {"max_image_tokens": 0}])
def test_bad_values_are_refused(settings):
    with pytest.raises(SettingError):
        ImageBudget(**settings)


def test_each_picture_may_have_its_own_detail():
    own = counts([PHOTO, TALL, PHOTO], ImageBudget())
    found = counts([PHOTO, TALL, PHOTO], ImageBudget(details=("low", "auto", "high")))
    assert found == [1, own[1], own[2]] and own[0] > 1


@pytest.mark.parametrize("limit", [64 * 16, 64 * 20, 64 * 30])
def test_a_limit_is_kept_by_pictures_that_are_not_of_high_detail(limit):
    own = counts([PHOTO, PHOTO, PHOTO], ImageBudget())
    found = counts([PHOTO, PHOTO, PHOTO], ImageBudget(details=("auto", "high", "auto"), max_image_tokens=limit))
    assert found[1] == own[1] and sum(found) <= limit // 64
    with pytest.raises(PromptError, match="with detail 'auto, high, high'"):
        choose_tilers([PHOTO] * 3, TILER, 64, ImageBudget(details=("auto", "high", "high"), max_image_tokens=64 * 20))


def test_limits_leave_pictures_of_high_detail_as_they_are():
    budget = ImageBudget(details=("high", "auto", "low"))
    found = choose_within([PHOTO, TALL, PHOTO], TILER, 64, budget, lambda _: "max_memory")
    alone = choose_within([PHOTO], TILER, 64, ImageBudget(), lambda _: "max_memory")
    assert found[0] == (TILER, None) and found[2][1] == "detail"
    assert found[1][1] == "max_memory" == alone[0][1]


def test_details_are_one_for_each_picture():
    with pytest.raises(SettingError, match="detail is given for 2 pictures, and there are 1"):
        choose_tilers([PHOTO], TILER, 64, ImageBudget(details=("low", "low")))
    for wrong in (("low", "best"), 7, ("low", 7)):
        with pytest.raises(SettingError, match="detail is"):
            image_budget(wrong, None, None)
    assert image_budget(("low", "high"), None, None).details == ("low", "high")
