"""Exceptions from a recipe."""

from __future__ import annotations

import re

import pytest

from edge_mllm.bundle.recipes import RECIPE_LIST
from edge_mllm_quant.recipes.override import (
    OverrideError,
    apply_overrides,
    parse_override,
    pattern_of,
    tensor_expression,
)
from edge_mllm_quant.recipes.recipe import DEFAULTS, RECIPES, Component, Recipe, find_recipe

ALL: tuple[Component, ...] = ("gguf", "onnx", "vision")


def _applied(*texts: str, components: tuple[Component, ...] = ALL, **names: str) -> dict[Component, Recipe]:
    recipes = {component: find_recipe(component, names.get(component)) for component in components}
    return apply_overrides(recipes, [parse_override(text) for text in texts])


def test_every_listed_recipe_exists_and_every_recipe_is_listed() -> None:
    assert [(entry.component, entry.name) for entry in RECIPE_LIST] == [(r.component, r.name) for r in RECIPES]
    assert DEFAULTS == {"gguf": "q4_0", "onnx": "int4_b32", "vision": "int8", "mmproj": "f16"}


def test_the_type_says_which_part_an_exception_is_for() -> None:
    found = _applied("head=q4_0", "embeddings=q8_0", "blk.*.ffn_down=q8_0", "projector=fp32", "embeddings=float32")
    assert (found["gguf"].head, found["gguf"].embedding_type) == ("q4_0", "q8_0")
    assert found["gguf"].overrides == ("head=q4_0", "embeddings=q8_0", "blk.*.ffn_down=q8_0")
    assert found["onnx"].embeddings == "float32" and find_recipe("onnx").embeddings == "float16"
    assert len(found["vision"].keep_float) == 1 and "*projector*" in found["vision"].keep_float[0]
    ((expression, kind),) = found["gguf"].tensors
    assert kind == "q8_0"
    assert re.search(expression, "blk.3.ffn_down.weight") and re.search(expression, "blk.11.ffn_down")
    assert not re.search(expression, "blk.3.ffn_down_exps.weight")


def test_the_onnx_head_has_a_type_of_its_own() -> None:
    recipe = _applied("head=int8")["onnx"]
    assert recipe.builder_options["matmul_mixed_precision"] == "last_matmul:int8" and recipe.overrides == ("head=int8",)
    mixed = _applied("head=int4", onnx="int4_mixed")["onnx"]
    assert mixed.builder_options["matmul_mixed_precision"] == "last_matmul:int4,mixed_layers:int8"
    assert "matmul_mixed_precision" not in find_recipe("onnx").builder_options
    with pytest.raises(OverrideError, match="keeps everything in floats"):
        _applied("head=int8", onnx="f32")


def test_a_pattern_is_no_regular_expression() -> None:
    assert re.search(tensor_expression("a.b?"), "a.bc.weight")
    assert not re.search(tensor_expression("a.b?"), "axbc.weight")
    assert not re.search(tensor_expression("output"), "output_norm.weight")


@pytest.mark.parametrize("pattern", ["blk.*.ffn_down", "blk.0.attn_?", "output.weight", "a*?.b"])
def test_a_message_shows_the_pattern_that_was_typed(pattern: str) -> None:
    assert pattern_of(tensor_expression(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("head", "write TARGET=TYPE"),
        ("=q4_0", "write TARGET=TYPE"),
        ("head=q9", r"no type 'q9'; known: f32, .*iq4_nl.*fp32"),
        ("head=float16", "knows embeddings=float16 or float32 and head=int4 or int8"),
        ("embeddings=int8", "knows embeddings=float16 or float32"),
        ("*.down_proj=int8", "knows embeddings"),
    ],
)
def test_what_cannot_be_followed_is_refused(text: str, reason: str) -> None:
    with pytest.raises(OverrideError, match=reason):
        _applied(text)


def test_parts_that_are_not_written_or_not_quantised_refuse() -> None:
    with pytest.raises(OverrideError, match="is for gguf, which is not written"):
        _applied("head=q4_0", components=("onnx", "vision"))
    with pytest.raises(OverrideError, match="f16 keeps everything in floats"):
        _applied("head=q4_0", gguf="f16")
    with pytest.raises(OverrideError, match="fp16 keeps everything in floats"):
        _applied("projector=fp32", vision="fp16")
