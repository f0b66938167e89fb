from __future__ import annotations

import io

import pytest
from PIL import Image

from edge_mllm.errors import SettingError
from edge_mllm.measure.bench.cases import Grid, parse_size, question, sample_picture


def test_a_grid_is_every_combination() -> None:
    grid = Grid(models=["a", "b"], threads=[1, 2], image_sizes=[(10, 20), (30, 40)], answer_tokens=[8])
    cases = grid.cases()
    assert len(cases) == len(set(cases)) == 8
    assert {(c.model, c.threads, c.image_width, c.image_height) for c in cases} == {
        (m, t, w, h) for m in "ab" for t in (1, 2) for w, h in ((10, 20), (30, 40))
    }


def test_text_alone_is_measured_once_whatever_the_sizes() -> None:
    cases = Grid(models=["a"], images=[0, 1], image_sizes=[(10, 20), (30, 40)]).cases()
    assert [(c.images, c.image_width) for c in cases] == [(0, 0), (1, 10), (1, 30)]


@pytest.mark.parametrize(
    "wrong",
    [{"threads": [0]}, {"images": [-1]}, {"answer_tokens": [1]}, {"prompt_tokens": [0]}, {"image_sizes": [(0, 5)]}],
)
def test_values_outside_their_range_are_refused(wrong: dict[str, list[int]]) -> None:
    with pytest.raises(SettingError):
        Grid(models=["a"], **wrong).cases()  # type: ignore[arg-type]


def test_sizes_are_parsed() -> None:
    assert parse_size("1024x768") == (1024, 768)
    for wrong in ("1024", "x", "10x-3", "ax3", ""):
        with pytest.raises(SettingError, match="WIDTHxHEIGHT"):
            parse_size(wrong)


def test_pictures_are_repeatable_and_differ_by_seed() -> None:
    first = sample_picture(64, 48, 1)
    assert first == sample_picture(64, 48, 1) != sample_picture(64, 48, 2)
    with Image.open(io.BytesIO(first)) as picture:
        assert (picture.size, picture.format) == ((64, 48), "JPEG")


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_the_smallest_pictures_can_be_made(size: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(sample_picture(*size, 0))) as picture:
        assert picture.size == size


@pytest.mark.parametrize("tokens", [1, 2, 16, 500])
def test_a_question_has_the_length_asked_for(tokens: int) -> None:
    """A tokenizer that makes two tokens of each word overshoots by one at most."""

    def count(text: str) -> int:
        return 2 * len(text.split())

    assert tokens <= count(question(tokens, 7, count)) <= tokens + 1


def test_questions_share_no_beginning() -> None:
    first, second = (question(12, seed, lambda text: len(text.split())) for seed in (1, 2))
    assert first.split()[0] != second.split()[0]


def test_a_tower_goes_with_one_model() -> None:
    (case,) = Grid(models=["a.gguf"], mmproj="b.gguf").cases()
    assert case.mmproj == "b.gguf"
    with pytest.raises(SettingError, match="give one `model` with it"):
        Grid(models=["a.gguf", "c.gguf"], mmproj="b.gguf").cases()
