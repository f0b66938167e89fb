from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_mllm.costs.roofline import (
    DeviceProfile,
    Line,
    load_profile,
    save_profile,
)
from edge_mllm.costs.shapes import DecoderShape, TowerShape, decoder_shape
from edge_mllm.errors import ResultFileError, SettingError

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 211,
    "max_position_embeddings": 256,
}


def prefill_ops(shape: DecoderShape, tokens: int, past: int = 0) -> float:
    """All operations of a prompt; a score has a product with a key and one with a value."""
    return shape.linear_ops(tokens) + 4 * shape.head_dim * shape.attention_scores(tokens, past)


def attention_ops(tower: TowerShape) -> float:
    return 4 * tower.hidden / tower.n_head * tower.attention_scores


def line(rate: float, overhead: float = 0.0) -> Line:
    return Line(rate=rate, attention_rate=rate, overhead=overhead, observations=2, worst=0.0)


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_real_model(tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(**TEXT, tie_word_embeddings=tied)
    model = transformers.LlamaForCausalLM(config)
    assert decoder_shape(config.to_dict()).parameters == sum(p.numel() for p in model.parameters())


def test_operations_of_the_decoder_are_those_pytorch_counts() -> None:
    """torch's counter sees whole attention rectangles and the logits of every token; both are added here."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    config = transformers.LlamaConfig(**TEXT, attn_implementation="eager")
    model = transformers.LlamaForCausalLM(config).eval()
    tokens = 24
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, tokens, dtype=torch.long))
    shape = decoder_shape(config.to_dict())
    triangle = tokens * (tokens + 1) / 2
    rectangle = 4 * shape.n_layer * shape.n_head * shape.head_dim * (tokens**2 - triangle)
    all_logits = 2 * shape.head_weights * (tokens - 1)
    rope = counter.get_total_flops() - (prefill_ops(shape, tokens) + rectangle + all_logits)
    assert 0 <= rope <= 0.001 * counter.get_total_flops()


def test_operations_of_the_tower_are_those_pytorch_counts() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    vision = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "patch_size": 8}
    config = transformers.SiglipVisionConfig(
        **vision, image_size=32, num_attention_heads=4, vision_use_head=False, attn_implementation="eager"
    )
    model = transformers.SiglipVisionModel(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    shape = TowerShape(
        hidden=48, n_layer=2, n_head=4, n_ff=80, patches=16, patch_values=192, tokens=16, projector_weights=0
    )
    assert shape.linear_ops + attention_ops(shape) == counter.get_total_flops()


def test_prefill_in_two_parts_is_as_much_work_as_in_one() -> None:
    shape = decoder_shape(TEXT)
    once = prefill_ops(shape, 100)
    twice = prefill_ops(shape, 60) + prefill_ops(shape, 40, past=60) - 2 * shape.head_weights
    assert once == pytest.approx(twice)


def test_a_token_of_the_answer_attends_to_all_before_it() -> None:
    shape = decoder_shape(TEXT)
    assert shape.attention_scores(1, past=100) == 3 * 4 * 101
    assert prefill_ops(shape, 1, past=100) == shape.linear_ops(1) + 4 * 16 * 3 * 4 * 101
    assert shape.cache_rows(100) == 3 * 2 * 100
    assert shape.kv_bytes(100) == 2 * 3 * 2 * 16 * 100 * 2


@pytest.mark.parametrize("name", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_missing_size_is_named(name: str) -> None:
    with pytest.raises(SettingError, match=name):
        decoder_shape({key: value for key, value in TEXT.items() if key != name})


def test_layers_with_windows_see_what_is_in_them() -> None:
    """Qwen2.5-VL's: 28 of 32 layers see 64 patches, of a picture of 1,024 and then of one smaller than a window."""
    sizes = {"hidden": 1280, "n_layer": 32, "n_head": 16, "n_ff": 5130, "patch_values": 1176, "projector_weights": 0}
    tower = TowerShape(**sizes, patches=1024, tokens=256, windowed_layers=28, window=64)
    assert tower.attention_scores == 16 * 1024 * (4 * 1024 + 28 * 64)
    assert attention_ops(tower) == 4 * 80 * tower.attention_scores
    small = TowerShape(**sizes, patches=16, tokens=4, windowed_layers=28, window=64)
    assert small.attention_scores == 16 * 32 * 16 * 16


@pytest.fixture
def profile() -> DeviceProfile:
    lines = {
        "picture": line(1e8, 0.001),
        "tower/int8": line(1e12),
        "prefill/x": line(1e11),
        "decode/x": line(2e10, 1e-4),
    }
    return DeviceProfile(machine="m", processor="p", memory_bytes=1, threads=2, created="2026-01-01", lines=lines)


def test_operations_of_a_published_tower_are_as_known_from_elsewhere() -> None:
    """174 GFLOP a tile in linear layers, and 38 in attention."""
    tower = TowerShape(
        hidden=768,
        n_layer=12,
        n_head=12,
        n_ff=3072,
        patches=1024,
        patch_values=768,
        tokens=64,
        projector_weights=12288 * 960,
    )
    assert tower.linear_ops / 1e9 == pytest.approx(174, rel=0.04)
    assert attention_ops(tower) / 1e9 == pytest.approx(38, rel=0.04)


def test_a_stage_that_was_not_measured_is_named(profile: DeviceProfile) -> None:
    with pytest.raises(SettingError, match="tower/fp32"):
        profile.line("tower/fp32")


def test_a_profile_survives_its_file(profile: DeviceProfile, tmp_path: Path) -> None:
    save_profile(profile, tmp_path / "p.json")
    assert load_profile(tmp_path / "p.json") == profile


@pytest.mark.parametrize("change", [{"schema": "x"}, {"threads": "two"}, {"lines": {"picture": {}}}])
def test_a_wrong_profile_is_named(profile: DeviceProfile, tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "p.json"
    save_profile(profile, file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ResultFileError, match=r"p\.json"):
        load_profile(file)
