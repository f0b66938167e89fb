"""``plan`` against files: the bytes it tells from a configuration are those that an export writes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edge_mllm.bundle.gguf_header import decode_bytes, read_tensors
from edge_mllm.costs.facts import ModelFacts, read_shape, write_shape
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import SourceError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.probes import draw_picture
from edge_mllm_export.source.facts import facts_of_source
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.gguf.quantise import options_of
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_export.write.vision.tower import tower_samples, write_vision_onnx
from edge_mllm_quant.recipes.recipe import find_recipe, recipe_names

ROOT = Path(__file__).resolve().parents[2]
SHAPE_CONSTANTS = 64
"""Bytes below which an int64 constant is the shape of a reshape and no weight."""


def stored_bytes(file: Path) -> int:
    """Bytes of a graph's constants, without integers that only say where things are."""
    model = onnx.load_model(file)
    kinds = onnx.TensorProto
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_type != kinds.INT64]
    return sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in tensors if tensor.dims)


def size_of(facts: ModelFacts, engine: str, recipe: str) -> int:
    (found,) = (part.weight_bytes for part in facts.decoders[engine] if part.prefill == recipe)  # type: ignore[index]
    return found


@pytest.mark.parametrize("model", ["tiny_smolvlm", "tiny_smolvlm_tied"])
def test_gguf_bytes_are_exact(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A head of its own with rows that 256 does not divide, and a tied one with rows that it divides."""
    directory: Path = request.getfixturevalue(model)
    checkpoint = open_checkpoint(directory)
    text = write_text_checkpoint(checkpoint, find_family(checkpoint), tmp_path / "text")
    facts = facts_of_source(str(directory))
    for part in facts.decoders["gguf"]:
        file = tmp_path / f"{part.recipe}.gguf"
        recipe = find_recipe("gguf", part.recipe)
        write_decoder_gguf(text, file, recipe.base, name="x", options=options_of(recipe, {}))
        assert part.weight_bytes == sum(tensor.bytes for tensor in read_tensors(file)), part.recipe
        assert part.token_bytes == decode_bytes(file), part.recipe


def test_float_parts_are_exact(tiny_smolvlm: Path, tiny_bundle: Path) -> None:
    facts = facts_of_source(str(tiny_smolvlm))
    table = (tiny_bundle / "embeddings.npy").stat().st_size
    assert size_of(facts, "onnx", "f32") == stored_bytes(tiny_bundle / "decoder.onnx") + table
    (tower,) = (part.weight_bytes for part in facts.towers if part.recipe == "fp32")
    assert tower == stored_bytes(tiny_bundle / "vision.onnx")


@pytest.mark.parametrize("recipe", [name for name in recipe_names("vision") if name != "fp32"])
def test_tower_bytes_are_exact(recipe: str, tiny_smolvlm_tied: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm_tied)
    chosen, family, samples = find_recipe("vision", recipe), find_family(checkpoint), ()
    if chosen.fixed_scales:
        samples = tower_samples(checkpoint, family, [draw_picture(90, 60, seed=1)])
    write_vision_onnx(checkpoint, family, tmp_path / "vision.onnx", chosen, samples=samples)
    (told,) = (part.weight_bytes for part in facts_of_source(str(tiny_smolvlm_tied)).towers if part.recipe == recipe)
    assert told == stored_bytes(tmp_path / "vision.onnx")


def test_the_starters_four_bit_decoders_are_exact() -> None:
    """The bundle that ships against the configuration it was made from."""
    bundle = ROOT / "edge_mllm" / "starter.edge"
    facts = facts_of_source(str(ROOT / "starter" / "checkpoint"))
    assert size_of(facts, "gguf", "q4_0") == sum(tensor.bytes for tensor in read_tensors(bundle / "decoder.gguf"))
    table = (bundle / "embeddings.npy").stat().st_size
    assert size_of(facts, "onnx", "int4_b32") == stored_bytes(bundle / "decoder.onnx") + table


def test_shapes_are_known_without_weights() -> None:
    """Parameters and work of a published model, whose figures are public."""
    facts = facts_of_source("shape:smolvlm-500m")
    assert facts.shape is not None
    decoder, tower = facts.shape.decoder, facts.shape.tower
    assert (decoder.n_layer, decoder.n_embd, decoder.n_vocab) == (32, 960, 49280)
    assert (tower.n_layer, tower.hidden, tower.n_ff, tower.patches, tower.tokens) == (12, 768, 3072, 1024, 64)
    assert tower.projector_weights == 768 * 16 * 960
    assert facts.picture(1024, 768).tokens == 832
    assert read_shape(write_shape(facts.shape)) == facts.shape


def test_a_source_that_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such shape; there are: shape:smolvlm-256m"):
        facts_of_source("shape:unheard-of")
    with pytest.raises(SourceError, match="no such directory"):
        facts_of_source("./nowhere/at/all")
    with pytest.raises(SourceError, match="has no config"):
        facts_of_source(str(tmp_path))
