"""The listed true bits per weight are what the writers' rules give."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edge_mllm.bundle.recipes import PUBLISHED_SIZES, RECIPE_LIST, TRUE_BITS
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.gguf.header import read_entries
from edge_mllm_export.source.facts import facts_of_source

SHAPES = dict(zip(PUBLISHED_SIZES, ("smolvlm-256m", "smolvlm-500m", "internvl3-1b"), strict=True))


@pytest.mark.parametrize("place", range(len(PUBLISHED_SIZES)), ids=SHAPES.values())
def test_true_bits_are_those_of_the_shapes(place: int) -> None:
    facts = facts_of_source(f"shape:{SHAPES[PUBLISHED_SIZES[place]]}")
    parts = {**facts.decoders, "vision": facts.towers}
    plain = ((kind, part) for kind, listed in parts.items() for part in listed if not part.prompt)
    sizes = {(kind, part.recipe): part.weight_bytes for kind, part in plain}
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
    listed = {(entry.component, entry.name) for entry in RECIPE_LIST if entry.component not in ("mmproj", "prompt")}
    assert listed == TRUE_BITS.keys()


def test_heads_have_the_bits_that_their_recipes_say(tiny_smolvlm_tied: Path, tmp_path: Path) -> None:
    """Four bits in GGUF where asked for, eight in the mixed ONNX decoder."""
    recipes = "q4_0_head4,int4_mixed"
    options = ExportOptions(quant=recipes, vision="fp32", verify=False, calibration=False)
    spec = export_bundle(str(tiny_smolvlm_tied), tmp_path / "x.edge", options)
    assert {spec.parts[name].precision for name in ("decoder_gguf", "decoder_onnx")} == set(recipes.split(","))
    types = {name: tensor.dtype for name, tensor in read_entries(tmp_path / "x.edge" / "decoder.gguf").items()}
    assert types["token_embd.weight"] == types["blk.0.ffn_up.weight"] == "Q4_0"
    graph = onnx.load_model(tmp_path / "x.edge" / "decoder.onnx", load_external_data=False).graph
    nodes = [node for node in graph.node if node.op_type == "MatMulNBits"]
    bits = {node.name: {item.name: item.i for item in node.attribute}["bits"] for node in nodes}
    assert {count for name, count in bits.items() if name.startswith("/lm_head")} == {8}
    assert {count for name, count in bits.items() if "up_proj" in name} == {4}
