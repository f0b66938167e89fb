"""The original layout of InternVL, rewritten without running its code; llama.cpp's converter reads it too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from family_makers import changed_copy, linked_copy
from family_parity import Pair
from image_settings import picture
from oracle.gguf_compare import convert, key_differences, tensor_differences
from oracle.llama_cpp_source import llama_cpp_source
from tiny_internvl import make_tiny_internvl, make_tiny_internvl_chat

from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.checkpoint.checkpoint import Checkpoint
from edge_mllm_export.errors import CheckpointError, TensorsError, UnsupportedArchitectureError
from edge_mllm_export.families.internvl import family as internvl
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.write.vision.mmproj import write_mmproj


@pytest.fixture(scope="module", params=["qwen2", "qwen3"])
def layouts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Native and original directory with the same weights."""
    home = tmp_path_factory.mktemp("internvl")
    native = make_tiny_internvl(home / "native", decoder=request.param, depth=4)  # llama.cpp maps mlp1.3 as a layer
    return native, make_tiny_internvl_chat(home / "chat", native)


@pytest.fixture(scope="module")
def rewritten(layouts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve_source(str(layouts[1]), tmp_path_factory.mktemp("scratch"))


def test_every_tensor_is_the_native_one(layouts: tuple[Path, Path], rewritten: Checkpoint, tmp_path: Path) -> None:
    native = resolve_source(str(layouts[0]), tmp_path)
    assert set(rewritten.tensors) == set(native.tensors)
    for name in native.tensors:
        assert np.array_equal(rewritten.tensor(name).numpy(), native.tensor(name).numpy()), name
    check_tensors(rewritten, internvl.FAMILY)


def test_specs_are_the_native_ones(layouts: tuple[Path, Path], rewritten: Checkpoint, tmp_path: Path) -> None:
    native = resolve_source(str(layouts[0]), tmp_path)
    for spec in (internvl.image_spec, internvl.vision_spec, internvl.decoder_spec):
        assert spec(rewritten) == spec(native)
    assert internvl.prompt_spec(rewritten).image_token_id == internvl.prompt_spec(native).image_token_id
    ours, theirs = internvl.text_config(rewritten), internvl.text_config(native)
    assert {k: v for k, v in ours.items() if "token_id" not in k} == {
        k: v for k, v in theirs.items() if "token_id" not in k
    }


def test_prompt_is_the_conversation_template(rewritten: Checkpoint) -> None:
    pair = Pair.of(rewritten)
    found = pair.compare([picture(60, 40)], "Read it.")
    assert found.ids_equal and found.pixels_equal
    text = pair.tokenizer.decode(found.ids.tolist(), skip_special_tokens=False)
    assert text.startswith("<|im_start|>system\n你是书生·万象，英文名是InternVL")  # noqa: RUF001
    assert "大语言模型。<|im_end|>\n<|im_start|>user\n<img><IMG_CONTEXT>" in text
    assert text.endswith("<IMG_CONTEXT></img>\nRead it.<|im_end|>\n<|im_start|>assistant\n")


@pytest.fixture(scope="module")
def published(layouts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the fields that InternVL3-2B is published with."""
    scaling = {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}
    text = json.loads((layouts[1] / "config.json").read_text(encoding="utf-8"))["llm_config"]
    change = {"llm_config": text | {"rope_scaling": scaling}, "system_message": None}
    return changed_copy(layouts[1], tmp_path_factory.mktemp("published") / "chat", "config.json", change)


def test_a_system_message_of_null_is_the_conversations_own(published: Path, tmp_path: Path) -> None:
    pair = Pair.of(resolve_source(str(published), tmp_path))
    found = pair.compare([picture(60, 40)], "Read it.")
    assert found.ids_equal and found.pixels_equal
    text = pair.tokenizer.decode(found.ids.tolist(), skip_special_tokens=False)
    assert text.startswith("<|im_start|>system\n你是书生·万象")


@pytest.mark.parametrize("template", ["internlm2-chat", "Hermes-2"])
def test_older_conversations_have_no_newline_behind_a_turn(
    layouts: tuple[Path, Path], template: str, tmp_path: Path
) -> None:
    source = changed_copy(layouts[1], tmp_path / "source", "config.json", {"template": template})
    pair = Pair.of(resolve_source(str(source), tmp_path))
    text = pair.tokenizer.decode(pair.compare([picture(60, 40)], "Read it.").ids.tolist(), skip_special_tokens=False)
    assert text.startswith("<|im_start|>system\n你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型")
    assert "助手。<|im_end|><|im_start|>user\n<img><IMG_CONTEXT>" in text
    assert text.endswith("</img>\nRead it.<|im_end|><|im_start|>assistant\n")


def test_dynamic_scaling_ends_the_context_where_it_would_begin(published: Path, tmp_path: Path) -> None:
    """Both engines say what transformers says, which reads the scaling from the checkpoint."""
    options = ExportOptions(format="both", quant="f32", vision="fp32")
    spec = export_bundle(str(published), tmp_path / "out.edge", options)
    assert spec.decoder.context_length == 2048
    assert spec.verification["passed"]
    assert {engine: numbers["decoder"]["top1"] for engine, numbers in spec.verification["engines"].items()} == {
        "gguf": 1.0,
        "onnx": 1.0,
    }


def test_mmproj_is_that_of_llama_cpps_converter(
    layouts: tuple[Path, Path], rewritten: Checkpoint, tmp_path: Path
) -> None:
    """Their converter reads the original directory, ours the rewritten one."""
    ours = tmp_path / "ours.gguf"
    write_mmproj(rewritten, internvl.FAMILY, ours, "f32")
    source = linked_copy(layouts[1], tmp_path / "chat")
    settings = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (source / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    theirs = convert(llama_cpp_source(), source, tmp_path / "theirs.gguf", "--mmproj", "--outtype", "f32")
    assert tensor_differences(ours, theirs) == []
    assert key_differences(ours, theirs) == {}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"template": "phi3-chat"}, CheckpointError, "template.*phi3-chat"),
        ({"ps_version": "v1"}, CheckpointError, "ps_version"),
        ({"system_message": ["one", "two"]}, CheckpointError, "system_message.*expected a text"),
        ({"vision_config": None}, CheckpointError, "vision_config"),
        ({"vision_config": {"model_type": "uniflow"}}, CheckpointError, "vision_config.model_type.*uniflow"),
        ({"llm_config": {"architectures": ["OtherForCausalLM"]}}, UnsupportedArchitectureError, "OtherFor"),
    ],
)
def test_what_cannot_be_rewritten_is_named(
    layouts: tuple[Path, Path], tmp_path: Path, change: dict, error: type[Exception], says: str
) -> None:
    source = changed_copy(layouts[1], tmp_path / "source", "config.json", change)
    with pytest.raises(error, match=says):
        resolve_source(str(source), tmp_path)


def test_a_tokenizer_without_the_image_token_is_named(layouts: tuple[Path, Path], tmp_path: Path) -> None:
    source = changed_copy(layouts[1], tmp_path / "source", "config.json", {})
    for name in ("tokenizer_config.json", "added_tokens.json"):
        text = (source / name).read_text(encoding="utf-8").replace("<IMG_CONTEXT>", "<other>")
        (source / name).unlink()
        (source / name).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json.*<IMG_CONTEXT>"):
        resolve_source(str(source), tmp_path)


def test_a_tensor_of_unknown_name_is_refused(layouts: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = changed_copy(layouts[1], tmp_path / "source", "config.json", {})
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    save_file(tensors | {"vision_model.head.weight": tensors["mlp1.1.bias"].clone()}, source / "model.safetensors")
    with pytest.raises(TensorsError) as caught:
        check_tensors(resolve_source(str(source), tmp_path), internvl.FAMILY)
    assert caught.value.left_over == ("vision_model.head.weight",)
