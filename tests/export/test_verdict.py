"""When a measured loss fails an export, and when it is only reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_mllm_export import ExportOptions, Limits
from edge_mllm_export.errors import InputsError, LossError
from edge_mllm_export.verify.suspects import suspected_fields
from edge_mllm_export.verify.verdict import judge
from edge_mllm_quant.recipes.recipe import find_recipe

RECIPES = {"gguf": find_recipe("gguf"), "vision": find_recipe("vision")}


def _found(**changes: float) -> dict[str, Any]:
    logits = {"kl_mean": 0.1, "kl_max": 0.5, "top1": 0.95}
    found: dict[str, Any] = {
        "pixels": {"max_abs_difference": 0.0},
        "token_ids": {"equal": 5, "prompts": 5},
        "vision": {"cosine_mean": 0.999, "cosine_min": 0.99},
        "engines": {"gguf": {"decoder": dict(logits), "whole": dict(logits)}},
    }
    for path, value in changes.items():
        *place, last = path.split("__")
        inner = found
        for key in place:
            inner = inner[key]
        inner[last] = value
    return found


def _judge(found: dict[str, Any], *, random_weights: bool = False, **options: Any) -> dict[str, Any]:
    return judge(found, RECIPES, ExportOptions(**options), random_weights=random_weights)


LOSSES = [
    ("vision__cosine_mean", 0.9, "the vision tower"),
    ("engines__gguf__decoder__top1", 0.5, "the gguf decoder failed: top-1 agreement is 0.5, the limit is 0.8"),
    ("engines__gguf__decoder__kl_mean", 0.7, "the gguf decoder failed: the mean KL divergence is 0.7"),
    ("engines__gguf__whole__kl_mean", 0.7, "the whole with gguf"),
]


def test_small_losses_pass() -> None:
    assert _judge(_found())["passed"] is True


@pytest.mark.parametrize(("recipe", "worst"), [("int8_static", 0.9), ("fp32", 0.9999)])
def test_a_second_tower_is_judged_like_the_first(recipe: str, worst: float) -> None:
    recipes = {**RECIPES, "vision_openvino": find_recipe("vision", recipe)}
    found = _found() | {"vision_openvino": {"cosine_mean": worst, "cosine_min": worst}}
    with pytest.raises(LossError, match=r"the vision tower for OpenVINO failed: the (mean|worst) cosine is 0.9"):
        judge(found, recipes, ExportOptions(), random_weights=False)


@pytest.mark.parametrize(("place", "value", "message"), LOSSES)
def test_each_loss_has_its_floor_which_can_be_lifted(place: str, value: float, message: str) -> None:
    with pytest.raises(LossError, match=message):
        _judge(_found(**{place: value}))
    assert _judge(_found(**{place: value}), allow_loss=True)["passed"] is False
    assert _judge(_found(**{place: value}), random_weights=True)["passed"] is False
    lenient = Limits(min_top1=0.1, max_kl=5.0, min_cosine=0.1)
    assert _judge(_found(**{place: value}), limits=lenient)["passed"] is True


@pytest.mark.parametrize(("place", "value"), [("pixels__max_abs_difference", 0.01), ("token_ids__equal", 4)])
def test_wrong_inputs_fail_whatever_is_allowed(place: str, value: float) -> None:
    with pytest.raises(InputsError) as caught:
        _judge(_found(**{place: value}), allow_loss=True, random_weights=True)
    assert "more bits" not in str(caught.value)


def test_other_pixels_name_picture_file_and_field() -> None:
    found = _found(pixels__max_abs_difference=0.25)
    first = {"prompt": "What?", "pictures": [[640, 480]], "fields": ["image_mean", "do_normalize"]}
    found["pixels"] |= {"first_difference": first, "place": ["processor_config.json", "image_processor."]}
    says = (
        r"pixels failed: they differ by up to 0.25, first for 'What\?' with a picture of 640x480; what decides it is "
        r"'processor_config.json', image_processor.image_mean or image_processor.do_normalize"
    )
    with pytest.raises(InputsError, match=says):
        _judge(found)


def test_other_ids_name_the_prompt() -> None:
    found = _found(token_ids__equal=4)
    found["token_ids"]["first_difference"] = {"prompt": "a  5", "pictures": [], "place": 7}
    with pytest.raises(InputsError, match=r"1 of 5 prompts differ, first for 'a +5' from token 7 on; .* chat template"):
        _judge(found)


TILES = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
SCALE = np.array([0.5, 0.6, 0.7], np.float32)[:, None, None]


@pytest.mark.parametrize(
    ("theirs", "field"),
    [
        (TILES + SCALE, "image_mean"),
        (TILES * SCALE, "image_std"),
        (TILES * 2 + 1, "image_std"),
        (np.roll(TILES, 1, axis=-1), "resample"),
        (TILES[:1], "size"),
    ],
)
def test_the_setting_that_explains_other_pixels(theirs: np.ndarray, field: str) -> None:
    assert suspected_fields(theirs, TILES)[0] == field
    if theirs.shape == TILES.shape:  # packed patches have their channels one after another too
        assert suspected_fields(theirs.reshape(2, -1), TILES.reshape(2, -1))[0] == field
