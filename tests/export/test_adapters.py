"""LoRA adapters: merged as peft merges them, or refused with a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge_mllm_export.checkpoint.checkpoint import Checkpoint
from edge_mllm_export.errors import AdapterError, CheckpointError
from edge_mllm_export.source.source import resolve_source

ATTENTION = ["q_proj", "v_proj", "o_proj"]


def train(base: Path, directory: Path, seed: int = 0, **settings: Any) -> dict[str, torch.Tensor]:
    """Save an adapter with random factors through peft and return the weights that peft's own merge gives."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(base)
    wrapped = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": ATTENTION, **settings}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    wrapped.save_pretrained(directory)
    merged: dict[str, torch.Tensor] = wrapped.merge_and_unload().state_dict()
    return merged


def assert_equal(checkpoint: Checkpoint, expected: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    for name in checkpoint.tensors:
        torch.testing.assert_close(checkpoint.tensor(name), expected[name], rtol=tolerance, atol=tolerance)


def changed(checkpoint: Checkpoint, base: Path) -> set[str]:
    before = load_file(base / "model.safetensors")
    return {name for name in before if not torch.equal(before[name], checkpoint.tensor(name))}


KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "attention of tower and language model": ({}, 2 * 2 + 2 * 3),
    "rank-stabilised": ({"use_rslora": True}, 10),
    "own ranks and alphas": (
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.1\.self_attn\.v_proj": 40}},
        10,
    ),
    "embedding and head": ({"target_modules": ["embed_tokens", "lm_head"]}, 2),
    "patch convolution and connector": ({"target_modules": ["patch_embedding", "modality_projection.proj"]}, 2),
    "whole modules beside it": ({"modules_to_save": ["modality_projection", "lm_head"]}, 12),
    "fan_in_fan_out on ordinary layers": ({"fan_in_fan_out": True}, 10),
    "every linear layer": ({"target_modules": "all-linear"}, 2 * 7 + 2 * 6 + 1),
}


@pytest.mark.parametrize(("settings", "count"), KINDS.values(), ids=KINDS.keys())
def test_merged_as_peft_merges(tiny_smolvlm: Path, tmp_path: Path, settings: dict[str, Any], count: int) -> None:
    expected = train(tiny_smolvlm, tmp_path / "adapter", **settings)
    checkpoint = resolve_source(str(tmp_path / "adapter"), tmp_path)
    assert_equal(checkpoint, expected)
    assert len(changed(checkpoint, tiny_smolvlm)) == count


def test_the_merged_checkpoint_is_a_checkpoint(tiny_smolvlm: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    expected = train(tiny_smolvlm, tmp_path / "adapter")
    (tmp_path / "adapter" / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "adapter" / "chat_template.jinja").write_text("the adapter's own")
    checkpoint = resolve_source(str(tmp_path / "adapter"), tmp_path)
    assert checkpoint.id == "adapter on tiny-smolvlm"
    assert checkpoint.licence == "mit (adapter), apache-2.0 (base)"
    assert checkpoint.chat_template == "the adapter's own"
    assert checkpoint.sha256() != resolve_source(str(tiny_smolvlm), tmp_path).sha256()
    AutoProcessor.from_pretrained(checkpoint.path, backend="pil")
    loaded = AutoModelForImageTextToText.from_pretrained(checkpoint.path).state_dict()
    for name, values in expected.items():
        torch.testing.assert_close(loaded[name], values, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_rounded_once(tiny_smolvlm_tied: Path, tmp_path: Path) -> None:
    expected = train(tiny_smolvlm_tied, tmp_path / "adapter")
    checkpoint = resolve_source(str(tmp_path / "adapter"), tmp_path)
    assert {info.dtype for info in checkpoint.tensors.values()} == {"BF16"}
    assert_equal(checkpoint, expected, tolerance=2**-7)  # peft rounds the product before it adds


def test_the_adapter_of_an_older_model_class(tiny_smolvlm: Path, tmp_path: Path) -> None:
    expected = train(tiny_smolvlm, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = {name.replace("model.text_model.", "text_model.model."): value for name, value in load_file(file).items()}
    save_file({name.replace("base_model.text", "base_model.model.text"): v for name, v in tensors.items()}, file)
    assert_equal(resolve_source(str(tmp_path / "adapter"), tmp_path), expected)


def test_a_base_beside_the_adapter(tiny_smolvlm: Path, tmp_path: Path) -> None:
    expected = train(tiny_smolvlm, tmp_path / "adapter")
    shutil.copytree(tiny_smolvlm, tmp_path / "base")
    edit(tmp_path / "adapter", base_model_name_or_path="../base")
    assert_equal(resolve_source(str(tmp_path / "adapter"), tmp_path), expected)


def edit(adapter: Path, **fields: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.fixture(scope="module")
def trained(tiny_smolvlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained") / "adapter"
    train(tiny_smolvlm, directory)
    return directory


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_dora": True}, "uses DoRA, which is not merged here; merge it with peft"),
        ({"use_qalora": True}, "uses QALoRA"),
        ({"trainable_token_indices": [1]}, "uses trainable_token_indices"),
        ({"layer_replication": [[0, 1]]}, "uses layer_replication"),
        ({"brand_new_field": 1}, "uses brand_new_field"),
        ({"init_lora_weights": "pissa"}, "started as 'pissa', which changes its base too"),
        ({"peft_type": "IA3"}, "of kind 'IA3'; only LoRA can be merged"),
        ({"base_model_name_or_path": None}, "does not say which base"),
        ({"lora_alpha": "much"}, "lora_alpha: is 'much', expected a number"),
        ({"base_model_name_or_path": "/no/where"}, "its base '/no/where' is not there; name it with `base`"),
        ({"base_model_name_or_path": "."}, "its base '.*' cannot be used: it is an adapter too"),
    ],
)
def test_refusals(adapter: Path, tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    edit(adapter, **fields)
    with pytest.raises(AdapterError, match=words) as caught:
        resolve_source(str(adapter), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("merged-*"))


def test_a_real_dora_adapter_is_refused(tiny_smolvlm: Path, tmp_path: Path) -> None:
    train(tiny_smolvlm, tmp_path / "adapter", use_dora=True)
    with pytest.raises(AdapterError, match="uses DoRA"):
        resolve_source(str(tmp_path / "adapter"), tmp_path)


def test_a_quantised_base_is_refused(tiny_smolvlm: Path, adapter: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_smolvlm, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    edit(adapter, base_model_name_or_path=str(base))
    with pytest.raises(AdapterError, match=r"cannot be used: it is already quantised \(bitsandbytes\)"):
        resolve_source(str(adapter), tmp_path)


def test_another_base_is_refused_with_every_name(tiny_smolvlm_tied: Path, adapter: Path, tmp_path: Path) -> None:
    edit(adapter, base_model_name_or_path=str(tiny_smolvlm_tied))
    with pytest.raises(AdapterError, match=r"layers\.0\.self_attn\.q_proj\.weight has another shape.*layers\.1\.self"):
        resolve_source(str(adapter), tmp_path)


def test_names_that_the_base_does_not_have(adapter: Path, tmp_path: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file({name.replace("self_attn", "attention"): value for name, value in load_file(file).items()}, file)
    with pytest.raises(AdapterError, match=r"layers\.0\.attention\.q_proj\.weight is not in the base"):
        resolve_source(str(adapter), tmp_path)


def test_a_lost_factor(adapter: Path, tmp_path: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    lost = next(name for name in tensors if name.endswith("q_proj.lora_B.weight"))
    save_file({name: value for name, value in tensors.items() if name != lost}, file)
    with pytest.raises(AdapterError, match="q_proj has only one of its two factors"):
        resolve_source(str(adapter), tmp_path)


def test_a_grown_vocabulary(adapter: Path, tmp_path: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.lm_head.weight": torch.zeros(530, 64)}, file)
    with pytest.raises(AdapterError, match=r"lm_head\.weight is \[530, 64\], in the base \[523, 64\]"):
        resolve_source(str(adapter), tmp_path)


def test_pickles_and_damage(adapter: Path, tmp_path: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        resolve_source(str(adapter), tmp_path)
    file.rename(adapter / "adapter_model.bin")
    with pytest.raises(
        AdapterError, match=r"adapter_model\.safetensors is missing \(pickled adapters are never opened"
    ):
        resolve_source(str(adapter), tmp_path)
