"""Qwen3-VL: sizes, patches, token ids, tower, rows for further layers and both engines against transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits
from family_makers import changed_copy, check_refused
from family_parity import Pair, check_native_goldens, check_sizes, compare_pictures, compare_system_message
from image_settings import picture
from tiny_qwen3_vl import make_tiny_qwen3_vl

import edge_mllm
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.bundle.tilers import NativeResolution
from edge_mllm.decoders.protocol import Tokens, Visual
from edge_mllm.errors import BundleError, EngineError, PartMismatchError, PromptError
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import DecoderBuildError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.probes import draw_picture
from edge_mllm_export.write.onnx.refine import check_weights

PUBLISHED = NativeResolution(unit=32, min_pixels=65_536, max_pixels=16_777_216)
GRIDS = [(1, 1), (2, 3), (4, 4), (9, 7), (1, 13), (13, 1), (3, 17), (24, 25)]
"""Rows and columns of visual tokens: fewer patches than the table of positions has, as many, and more."""
ENGINES = ("onnx", "gguf")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_qwen3_vl(tmp_path_factory.mktemp("tiny") / "qwen3-vl")


@pytest.fixture(scope="module")
def pair(checkpoint: Path) -> Pair:
    return Pair(checkpoint)


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    check_sizes(pair)


def test_goldens(tmp_path: Path) -> None:
    check_native_goldens(Pair(make_tiny_qwen3_vl(tmp_path / "published", size=None)), PUBLISHED)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    compare_pictures(pair, count, "Which is larger? <|im_end|> café <tool_call><think>")


def test_ids_with_a_system_message(pair: Pair) -> None:
    compare_system_message(pair)


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "qwen3-vl.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


def test_tower_equals_torch_on_any_grid(engines: Engines, checkpoint: Path) -> None:
    """What goes to each layer by itself."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    reference = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval().model.visual
    rng = np.random.default_rng(0)
    for rows, cols in GRIDS:
        pixels = rng.standard_normal((4 * rows * cols, 1536)).astype(np.float32)
        with torch.inference_mode():
            out = reference(torch.from_numpy(pixels), torch.tensor([[1, 2 * rows, 2 * cols]]))
        ours = engines.candidate.tower.encode(pixels, grids=[(rows, cols)]).rows
        assert ours.shape == (rows * cols, 3 * 64)
        for part, theirs in zip(np.split(ours, 3, axis=1), (out.pooler_output, *out.deepstack_features), strict=True):
            assert np.abs(part - theirs.numpy()).max() < 2e-5, (rows, cols)


@pytest.mark.parametrize("engine", ENGINES)
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine, kl_max=1e-7)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_layers_rows_count(engines: Engines, engine: str) -> None:
    """An engine that leaves one part of the rows out would pass over a change of it."""
    draw = np.random.default_rng(2)
    rows = draw.normal(size=(6, 3 * 64)).astype(np.float32)
    found = []
    with engines.load(engine, n_ctx=64) as model:
        decoder = model.decoder
        assert (decoder.n_embd, decoder.row_width) == (64, 192)
        for part in (None, 0, 1, 2):
            given = rows.copy()
            if part is not None:
                given[:, 64 * part : 64 * (part + 1)] = 0
            decoder.truncate(0)
            found.append(decoder.prefill([Tokens(np.arange(4)), Visual(given, (2, 3)), Tokens(np.arange(3))]))
        for wrong in (rows[:, :64], rows[:, :128]):
            with pytest.raises(EngineError, match=r"the decoder takes float32 \[n, 192\]"):
                decoder.prefill([Visual(np.ascontiguousarray(wrong), (2, 3))])
    differences = [float(np.abs(each - found[0]).max()) for each in found[1:]]
    assert min(differences) > 0.05, differences


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_of_tokens_stand_for_their_ids(engines: Engines, engine: str) -> None:
    from edge_mllm.decoders.segments import widened

    ids = np.arange(20, 26)
    with engines.load(engine, n_ctx=64) as model:
        expected = model.decoder.prefill([Tokens(ids)])
        rows = widened(model.decoder.embed(ids), model.decoder.row_width)
        model.decoder.truncate(0)
        lines = [Visual(rows[place : place + 1], (1, 1)) for place in range(len(ids))]  # positions as of text
        np.testing.assert_allclose(model.decoder.prefill(lines), expected, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_question_keeps_the_picture(engines: Engines, engine: str, tmp_path: Path) -> None:
    """Cells are kept, cut back, saved and taken up again; embeddings come out of the cache as they went in."""
    rgb, settings = draw_picture(150, 90, seed=3), {"max_new_tokens": 8}
    with engines.load(engine) as model:
        chat = model.chat()
        first = chat.ask("What is it?", images=[rgb], **settings)
        assert first.images[0].tokens == 15
        chat.save(tmp_path / "chat")
        second = chat.ask("And what else?", **settings)
        assert second.usage.reused_tokens > 15 and second.images[0].source == "kv"
        other = model.generate("Which colour is it?", images=[rgb], **settings)  # cut back to the picture's end
        assert other.images[0].source == "kv"
        again = model.generate("What is it?", images=[rgb], **settings)
        assert again.text == first.text
        assert model.encode(rgb).shape == (15, 192)
        model.generate("Hello", **settings)
        cached = model.generate("What is it?", images=[rgb], **settings)
        assert (cached.images[0].source, cached.text) == ("memory", first.text)
    with engines.load(engine) as model:
        taken = model.load_chat(tmp_path / "chat").ask("And what else?", **settings)
        assert taken.text == second.text and taken.images[0].source == "kv"
    with engines.load(engine) as model:
        cold = model.generate("Which colour is it?", images=[rgb], **settings)
        assert (cold.text, cold.images[0].source) == (other.text, "tower")


def test_four_bit_bundle_runs_and_is_verified(tmp_path: Path) -> None:
    source = make_tiny_qwen3_vl(tmp_path / "source", tied=False, hidden_size=128, intermediate_size=256)
    out = tmp_path / "four.edge"
    spec, answers = four_bits(source, out)
    assert spec.decoder.deepstack_layers == 2
    assert [answer.images[0].tokens for answer in answers] == [6, 6]
    document = json.loads((out / "bundle.json").read_text(encoding="utf-8"))
    for value, error, says in (
        (0, BundleError, r"decoder\.deepstack_layers: 0 is not a sane size"),
        ("2", BundleError, r"decoder\.deepstack_layers"),
        (3, BundleError, r"decoder\.deepstack_layers: 3 of 3 layers"),
        (1, PartMismatchError, r"decoder\.onnx takes"),
        (None, PartMismatchError, r"decoder\.onnx takes"),
    ):
        changed = document | {"decoder": document["decoder"] | {"deepstack_layers": value}}
        (out / "bundle.json").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(error, match=says):
            edge_mllm.load(out, engine="onnx", threads=1)
    with pytest.raises(PartMismatchError, match=r"decoder\.gguf has"):
        edge_mllm.load(out, engine="gguf", threads=1)


def test_weights_that_the_builder_did_not_find_are_noticed(engines: Engines, checkpoint: Path, tmp_path: Path) -> None:
    """onnxruntime-genai's builder leaves what transformers does not find at random, without a word."""
    import onnx

    from edge_mllm_export.write.text_model import write_text_checkpoint

    model = onnx.load(engines.out / "decoder.onnx")
    opened = open_checkpoint(checkpoint)
    check_weights(model, write_text_checkpoint(opened, find_family(opened), tmp_path / "own"))
    other = open_checkpoint(make_tiny_qwen3_vl(tmp_path / "other", seed=1))
    with pytest.raises(DecoderBuildError, match="does not hold the checkpoint's weights"):
        check_weights(model, write_text_checkpoint(other, find_family(other), tmp_path / "text"))


def test_videos_are_refused(engines: Engines) -> None:
    message = {"role": "user", "content": [{"type": "video", "path": "a.mp4"}, {"type": "text", "text": "What is it?"}]}
    with (
        engines.load("onnx") as model,
        pytest.raises(PromptError, match="an item of type 'video'; known: text, image"),
    ):
        model.generate(messages=[message])


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        ("vision_config", {"deepstack_visual_indexes": [0, 4]}, r"deepstack_visual_indexes.*different layers of 4"),
        ("vision_config", {"deepstack_visual_indexes": [1, 1]}, r"deepstack_visual_indexes.*different layers of 4"),
        ("vision_config", {"deepstack_visual_indexes": [-1]}, r"deepstack_visual_indexes.*different layers of 4"),
        ("vision_config", {"deepstack_visual_indexes": [0, 1, 2]}, r"names 3 layers, but the language model has 3"),
        ("vision_config", {"deepstack_visual_indexes": "x"}, r"deepstack_visual_indexes"),
        ("vision_config", {"num_position_embeddings": 37}, r"num_position_embeddings.*is no square"),
        ("vision_config", {"num_position_embeddings": 0}, r"num_position_embeddings.*0"),
        ("vision_config", {"out_hidden_size": 32}, r"out_hidden_size.*language model is 64 wide"),
        ("vision_config", {"spatial_merge_size": 4}, r"preprocessor_config.json.*merge_size"),
        ("vision_config", {"patch_size": 14}, r"preprocessor_config.json.*patch_size"),
        (
            "text_config",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6}},
            r"config.json.*mrope_section",
        ),
    ],
)
def test_hostile_settings_name_file_and_field(
    checkpoint: Path, tmp_path: Path, section: str, change: dict[str, Any], says: str
) -> None:
    opened = open_checkpoint(changed_copy(checkpoint, tmp_path, "config.json", change, section))
    check_refused(opened, says, "vision", "decoder")


def test_without_further_layers_it_is_an_ordinary_decoder(tmp_path: Path) -> None:
    opened = open_checkpoint(make_tiny_qwen3_vl(tmp_path / "plain", deepstack=()))
    spec = find_family(opened).decoder(opened)
    assert (spec.deepstack_layers, spec.row_width) == (None, 64)


def test_rows_are_as_wide_as_all_layers_need() -> None:
    spec = DecoderSpec(n_embd=8, n_vocab=10, n_layer=4, context_length=16)
    assert (spec.row_width, replace(spec, deepstack_layers=3).row_width) == (8, 32)


def test_one_packed_patch_is_both_frames_of_one_square(pair: Pair) -> None:
    packed = pair.compare([picture(64, 96)]).ours[0].pixels.reshape(3, 2, 4, 3, 2, 16, 16)
    assert np.array_equal(packed[..., 0, :, :], packed[..., 1, :, :])
