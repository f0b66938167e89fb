"""Qwen3.5: states beside keys and values, exact on both engines, and a second question as cheap as elsewhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits, load_exact
from family_makers import changed_copy, check_refused, linked_copy
from family_parity import Pair, check_native_goldens, check_sizes, compare_pictures, compare_system_message
from tiny_qwen3_5 import LAYERS, make_tiny_qwen3_5

import edge_mllm
from edge_mllm.bundle.numbers import check_numbers
from edge_mllm.bundle.tilers import NativeResolution
from edge_mllm.decoders.protocol import Tokens, Visual
from edge_mllm.errors import BundleError, EdgeMLLMError, EngineError, PartMismatchError, SettingError
from edge_mllm.session.files import open_bundle
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.checkpoint.shard_writer import save_tensors
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.probes import draw_picture
from edge_mllm_export.write.gguf.backbones import check_backbone
from edge_mllm_export.write.gguf.text_config import TextConfig

PUBLISHED = NativeResolution(unit=32, min_pixels=65_536, max_pixels=16_777_216)
ENGINES = ("onnx", "gguf")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_qwen3_5(tmp_path_factory.mktemp("tiny") / "qwen3.5")


@pytest.fixture(scope="module")
def pair(checkpoint: Path) -> Pair:
    return Pair(checkpoint)


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    check_sizes(pair)


def test_goldens(tmp_path: Path) -> None:
    check_native_goldens(Pair(make_tiny_qwen3_5(tmp_path / "published", size=None)), PUBLISHED)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    compare_pictures(pair, count, "Which is larger? <|im_end|> café <tool_call><think>")


def test_ids_with_a_system_message(pair: Pair) -> None:
    compare_system_message(pair)


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "qwen3.5.edge")


def test_a_bundle_may_have_the_published_bounds(engines: Engines) -> None:
    spec = open_bundle(engines.out).spec
    check_numbers(engines.out, replace(spec, image=replace(spec.image, tiler=PUBLISHED)))
    larger = replace(PUBLISHED, max_pixels=PUBLISHED.max_pixels + 1)
    with pytest.raises(BundleError, match=r"image\.tiler\.max_pixels: 16777217 is not a sane size"):
        check_numbers(engines.out, replace(spec, image=replace(spec.image, tiler=larger)))


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


@pytest.mark.parametrize("engine", ENGINES)
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine, kl_max=1e-7)


def _logits(model: edge_mllm.Model, prompt: str, rgb: np.ndarray) -> tuple[list[Any], edge_mllm.Answer]:
    """Logits of four greedy steps, and the answer."""
    seen: list[np.ndarray] = []

    def note(logits: np.ndarray, _: Any) -> np.ndarray:
        seen.append(logits.copy())
        return logits

    answer = model.generate(prompt, images=[rgb], max_new_tokens=4, processors=[note])
    return seen, answer


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_question_costs_its_own_tokens_and_is_bit_equal_to_a_cold_one(engines: Engines, engine: str) -> None:
    """Prefill goes back to the picture's end: the share of the first question's tokens is what is asked anew."""
    rgb = draw_picture(500, 120, seed=3)
    with engines.load(engine) as model:
        model.generate("What is it?", images=[rgb], max_new_tokens=6)
        warm, second = _logits(model, "Which?", rgb)
        third, again = _logits(model, "Which?", rgb)
    with engines.load(engine) as model:
        cold, first = _logits(model, "Which?", rgb)
    assert (second.images[0].source, first.images[0].source) == ("kv", "tower")
    assert second.usage.image_tokens > 50 and second.usage.reused_tokens > second.usage.image_tokens
    assert again.usage.reused_tokens > second.usage.reused_tokens  # to the end of the question itself
    assert second.text == first.text == again.text
    for ours in (warm, third):
        assert all(np.array_equal(a, b) for a, b in zip(ours, cold, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_question_is_one_twentieth_of_a_photo(engines: Engines, engine: str, tmp_path: Path) -> None:
    """Of the decoder's tokens; the tower is not asked again."""
    out = shutil.copytree(engines.out, tmp_path / "photo.edge")
    document = json.loads((out / "bundle.json").read_text(encoding="utf-8"))
    document["image"]["tiler"]["max_pixels"] = 1 << 20
    (out / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    rgb = draw_picture(900, 700, seed=1)
    with load_exact(out, engine, n_ctx=1024) as model:
        first = model.generate("What is it?", images=[rgb], max_new_tokens=1)
        second = model.generate("Which?", images=[rgb], max_new_tokens=1)
    computed = second.usage.prompt_tokens - second.usage.reused_tokens
    assert first.usage.reused_tokens == 0 and second.images[0].source == "kv"
    assert computed <= 0.05 * first.usage.prompt_tokens, (computed, first.usage.prompt_tokens)


@pytest.mark.parametrize("engine", ENGINES)
def test_chats_go_back_to_noted_places(engines: Engines, engine: str, tmp_path: Path) -> None:
    """The template writes a turn otherwise once it is answered, so that no turn goes on where the cache ends."""
    rgb, settings = draw_picture(150, 90, seed=3), {"max_new_tokens": 8}
    with engines.load(engine) as model:
        chat = model.chat()
        first = chat.ask("What is it?", images=[rgb], **settings)
        second = chat.ask("And what else?", **settings)
        assert second.images[0].source == "kv"
        asked = first.usage.prompt_tokens - second.usage.reused_tokens
        assert 0 < asked < 16  # what the template writes behind a question
        chat.save(tmp_path / "chat")
        third = chat.ask("Why?", **settings)
        assert third.usage.reused_tokens > second.usage.reused_tokens
        reused = chat.ask("Why?", **settings).usage.reused_tokens
        assert reused > third.usage.reused_tokens
    with engines.load(engine) as model:
        taken = model.load_chat(tmp_path / "chat").ask("Why?", **settings)
        assert (taken.text, taken.images[0].source) == (third.text, "kv")
        assert taken.usage.reused_tokens == third.usage.reused_tokens


@pytest.mark.parametrize("engine", ENGINES)
def test_states_go_back_to_marks_and_nowhere_else(engines: Engines, engine: str) -> None:
    rows = np.random.default_rng(2).normal(size=(6, 64)).astype(np.float32)
    with engines.load(engine, n_ctx=64) as model:
        decoder = model.decoder
        assert not decoder.can_cut
        decoder.prefill([Tokens(np.arange(4)), Visual(rows, (2, 3))])
        mark = decoder.mark()
        expected = decoder.prefill([Tokens(np.arange(20, 25))])
        state, following = decoder.state(), decoder.step(7)
        with pytest.raises(EngineError, match="state cannot be cut back to 10 cells of 16"):
            decoder.truncate(10)
        decoder.rewind(mark)
        assert decoder.n_past == 10
        assert np.array_equal(decoder.prefill([Tokens(np.arange(20, 25))]), expected)
        decoder.truncate(0)
        with pytest.raises(EngineError, match="cannot go back to 10 cells, the cache has 0"):
            decoder.rewind(mark)
        decoder.restore(state)
        assert np.array_equal(decoder.step(7), following)
        decoder.truncate(0)
        fresh = decoder.prefill([Tokens(np.arange(4)), Visual(rows, (2, 3))])
        decoder.truncate(0)
        assert np.array_equal(decoder.prefill([Tokens(np.arange(4)), Visual(rows, (2, 3))]), fresh)


@pytest.mark.parametrize("engine", ENGINES)
def test_options_and_guesses(engines: Engines, engine: str) -> None:
    """Options are scored aside, which goes back; a guess could not be undone."""
    rgb = draw_picture(70, 33, seed=0)
    with engines.load(engine) as model:
        scored = model.decide("What is it?", ["a cat", "a dog"], images=[rgb])
        again = model.decide("What is it?", ["a cat", "a dog"], images=[rgb])
        assert scored == again or scored.best == again.best
        with pytest.raises(SettingError, match="prompt lookup is not for this model"):
            model.generate("What is it?", images=[rgb], max_new_tokens=2, prompt_lookup=4)


@pytest.mark.slow
def test_four_bit_bundle_runs_and_is_verified(tmp_path: Path) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 256}
    source = make_tiny_qwen3_5(tmp_path / "source", tied=False, layers=LAYERS[1:3], **sizes)
    out = tmp_path / "four.edge"
    spec, answers = four_bits(source, out)
    assert spec.decoder.state_layers == 1
    assert [answer.images[0].tokens for answer in answers] == [6, 6]


def test_hostile_bundles_name_the_field(engines: Engines, tmp_path: Path) -> None:
    out = shutil.copytree(engines.out, tmp_path / "changed.edge")
    document = json.loads((out / "bundle.json").read_text(encoding="utf-8"))
    for value, error, says in (
        (0, BundleError, r"decoder\.state_layers: 0 is not a sane size"),
        (6, BundleError, r"decoder\.state_layers: 6 of 5 layers"),
        (None, PartMismatchError, r"decoder\.onnx keeps states, bundle\.json says otherwise"),
    ):
        changed = document | {"decoder": document["decoder"] | {"state_layers": value}}
        (out / "bundle.json").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(error, match=says):
            edge_mllm.load(out, engine="onnx", threads=1)


def test_the_block_that_predicts_a_second_token_is_left_out(checkpoint: Path, tmp_path: Path) -> None:
    import torch

    opened = open_checkpoint(checkpoint)
    tensors = {name: opened.tensor(name) for name in opened.tensors}
    tensors["mtp.fc.weight"] = torch.zeros(64, 128)
    (linked_copy(checkpoint, tmp_path) / "model.safetensors").unlink()
    save_tensors(tensors, tmp_path / "model.safetensors")
    opened = open_checkpoint(tmp_path)
    check_tensors(opened, find_family(opened))


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        ("text_config", {"layer_types": ["linear_attention"] * 5}, r"layer_types.*no layer of full attention"),
        ("text_config", {"layer_types": ["full_attention"]}, r"layer_types"),
        ("text_config", {"layer_types": ["mamba"] * 5}, r"layer_types"),
        ("text_config", {"linear_num_value_heads": 3}, r"linear_num_value_heads.*2 heads of keys cannot share"),
        ("text_config", {"linear_num_key_heads": 0}, r"linear_num_key_heads.*expected 1 or more"),
        ("text_config", {"linear_conv_kernel_dim": "x"}, r"linear_conv_kernel_dim"),
        (
            "text_config",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6}},
            r"config.json.*mrope_section",
        ),
        ("vision_config", {"deepstack_visual_indexes": [1]}, r"deepstack_visual_indexes.*takes no rows"),
        ("vision_config", {"num_position_embeddings": 37}, r"num_position_embeddings.*is no square"),
        ("vision_config", {"out_hidden_size": 32}, r"out_hidden_size.*language model is 64 wide"),
        ("vision_config", {"patch_size": 14}, r"preprocessor_config.json.*patch_size"),
    ],
)
def test_hostile_settings_name_file_and_field(
    checkpoint: Path, tmp_path: Path, section: str, change: dict[str, Any], says: str
) -> None:
    opened = open_checkpoint(changed_copy(checkpoint, tmp_path, "config.json", change, section))
    check_refused(opened, says, "vision", "decoder")


def test_llama_cpp_has_one_width_of_heads(checkpoint: Path, tmp_path: Path) -> None:
    change = {"linear_value_head_dim": 16}
    opened = open_checkpoint(changed_copy(checkpoint, tmp_path, "config.json", change, "text_config"))
    with pytest.raises(EdgeMLLMError, match=r"config.json.*linear_value_head_dim.*as wide as those of keys \(32\)"):
        check_backbone(TextConfig(find_family(opened).text_config(opened)))
