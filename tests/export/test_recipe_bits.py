"""The listed true bits per weight are what the writers' rules give."""

from __future__ import annotations

import pytest

from edge_mllm.recipes import PUBLISHED_SHAPES, RECIPE_LIST, TRUE_BITS
from edge_mllm_export.source_facts import facts_of_source


@pytest.mark.parametrize("place", range(len(PUBLISHED_SHAPES)), ids=PUBLISHED_SHAPES)
def test_true_bits_are_those_of_the_shapes(place: int) -> None:
    facts = facts_of_source(f"shape:{PUBLISHED_SHAPES[place]}")
    parts = {**facts.decoders, "vision": facts.towers}
    sizes = {(kind, part.recipe): part.weight_bytes for kind, listed in parts.items() for part in listed}
    weights = {
        "gguf": sizes["gguf", "f32"] / 4,
        "onnx": sizes["gguf", "f32"] / 4,
        "vision": sizes["vision", "fp32"] / 4,
    }
    found = {key: 8 * size / weights[key[0]] for key, size in sizes.items()}
    assert found.keys() == TRUE_BITS.keys()
    for key, bits in found.items():
        assert TRUE_BITS[key][place] == pytest.approx(bits, abs=0.006), key


def test_every_recipe_of_a_decoder_or_tower_has_true_bits() -> None:
    listed = {(entry.component, entry.name) for entry in RECIPE_LIST if entry.component != "mmproj"}
    assert listed == TRUE_BITS.keys()
