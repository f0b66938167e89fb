"""Recipes by name."""

from __future__ import annotations

import pytest

from edge_mllm_quant.recipes.recipe import DEFAULTS, RECIPES, UnknownRecipeError, find_recipe, recipe_names


def test_names_are_unique_for_each_component() -> None:
    named = [(recipe.component, recipe.name) for recipe in RECIPES]
    assert len(named) == len(set(named))


def test_defaults_exist_and_are_small() -> None:
    assert {find_recipe(component).name for component in DEFAULTS} == set(DEFAULTS.values())
    assert find_recipe("gguf").bits < 5
    assert find_recipe("onnx").bits < 5


def test_unknown_recipe_lists_the_known_ones_of_its_component() -> None:
    with pytest.raises(UnknownRecipeError) as caught:
        find_recipe("gguf", "q3")
    known = "unknown recipe 'q3'; known for the GGUF decoder: f32, f16, q8_0, q4_0, iq4_nl, q4_k_m, q4_0_head4"
    assert str(caught.value) == known
    assert "int8" in recipe_names("vision")
