"""A checkpoint says the same, however it was saved: transformers' versions, PEFT, ms-swift, Unsloth, wrappers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from family_makers import MAKERS, make_tiny
from safetensors.torch import load_file, save_file
from saved_layouts import SAVED, edit, rewrite, saved_as

from edge_mllm_export.errors import AdapterError, CheckpointError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.processor import DirectoryProcessor, load_processor
from edge_mllm_export.source.source import resolve_source

TEXTS = ("a  5", "1. one\n2. two\n\n10. ten", "cafe\u0301 naïve", "<image> and </s>", "  spaces  ", "سلام 🙂")


@pytest.fixture(scope="module", params=list(MAKERS))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(request.param, tmp_path_factory.mktemp("saved"))


def view(source: Path, scratch: Path) -> dict[str, object]:
    """Everything that decides what an exported bundle says, but for the weights."""
    scratch.mkdir(exist_ok=True)
    checkpoint = resolve_source(str(source), scratch)
    family = find_family(checkpoint)
    tokenizer = checkpoint.tokenizer()
    return {
        "family": family.name,
        "image": family.image(checkpoint),
        "vision": family.vision(checkpoint),
        "prompt": family.prompt(checkpoint),
        "decoder": family.decoder(checkpoint),
        "template": family.chat_template(checkpoint),
        "ids": [tokenizer.encode(text).ids for text in TEXTS],
    }


@pytest.mark.parametrize("way", list(SAVED))
def test_the_same_model(source: Path, tmp_path: Path, way: str) -> None:
    again = saved_as(source, way, tmp_path / "saved")
    assert view(again, tmp_path / "a") == view(source, tmp_path / "b")
    before, after = (resolve_source(str(path), tmp_path) for path in (source, again))
    assert set(before.tensors) == set(after.tensors) - {"lm_head.weight"} | (set(before.tensors) & {"lm_head.weight"})
    for name in before.tensors:
        assert torch.equal(before.tensor(name), after.tensor(name)), name


def test_an_adapter_that_was_never_merged_is_named(tiny_smolvlm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_smolvlm, tmp_path / "whole"))
    rewrite(folder, lambda name: f"base_model.model.{name}".replace("q_proj.weight", "q_proj.base_layer.weight"))
    file = folder / "model.safetensors"
    factors = {
        f"base_model.model.model.text_model.layers.0.self_attn.q_proj.lora_{side}.default.weight": torch.zeros(4, 4)
        for side in "AB"
    }
    save_file(load_file(file) | factors, file)
    with pytest.raises(CheckpointError, match="adapter that is not merged") as caught:
        resolve_source(str(folder), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def adapter(tiny_smolvlm: Path, tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(tiny_smolvlm)
    # ms-swift writes one regular expression in place of a list of modules.
    modules = r"^(model\.text_model(?=\.).*\.(k_proj|o_proj|q_proj|v_proj))$"
    get_peft_model(model, LoraConfig(r=4, target_modules=modules)).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_of_ms_swift(tiny_smolvlm: Path, adapter: Path, tmp_path: Path) -> None:
    cached = "/training/modelscope/hub/models/org/base"
    edit(adapter / "adapter_config.json", base_model_name_or_path=cached)
    (adapter / "additional_config.json").write_text('{"lora_dtype": null, "lorap_lr_ratio": null}')
    (adapter / "args.json").write_text(json.dumps({"model": "org/base", "train_type": "lora"}))
    with pytest.raises(AdapterError, match=r"base' is not there; name it with `base` \(args\.json: org/base\)"):
        resolve_source(str(adapter), tmp_path)
    merged = resolve_source(str(adapter), tmp_path, base=str(tiny_smolvlm))
    assert merged.tensors.keys() == resolve_source(str(tiny_smolvlm), tmp_path).tensors.keys()


def test_an_adapter_whose_base_is_quantised_asks_for_one_in_floats(
    tiny_smolvlm: Path, adapter: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_smolvlm, tmp_path / "base-bnb-4bit"))
    edit(base / "config.json", quantization_config={"load_in_4bit": True, "quant_method": "bitsandbytes"})
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    with pytest.raises(AdapterError, match=r"already quantised.*; name the same base in floats with `base`"):
        resolve_source(str(adapter), tmp_path)


def test_what_transformers_5_saves_again(source: Path, tmp_path: Path) -> None:
    checkpoint = resolve_source(str(source), tmp_path)
    loaded = load_processor(checkpoint, find_family(checkpoint))
    if not isinstance(loaded, DirectoryProcessor):
        pytest.skip("transformers has no processor for it")
    folder = Path(shutil.copytree(source, tmp_path / "saved"))
    for name in ("preprocessor_config.json", "processor_config.json", "chat_template.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    loaded.processor.save_pretrained(folder)
    assert (folder / "processor_config.json").is_file()
    assert view(folder, tmp_path / "a") == view(source, tmp_path / "b")
