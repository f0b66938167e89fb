"""Opening checkpoint directories: whole ones, older layouts, and hostile ones (each one error that names the place)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import CheckpointError, SourceError


@pytest.fixture
def copy(tiny_smolvlm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_smolvlm, tmp_path / "copy"))


def edit(file: Path, change: Any) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def set_field(dotted: str, value: Any) -> Any:
    def change(document: dict[str, Any]) -> None:
        *sections, last = dotted.split(".")
        for section in sections:
            document = document[section]
        document[last] = value

    return change


def drop_field(name: str) -> Any:
    return lambda document: document.pop(name)


def test_everything_is_read(tiny_smolvlm: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm)
    assert checkpoint.id == "tiny-smolvlm"
    assert checkpoint.licence == "apache-2.0"
    assert not checkpoint.random_weights
    assert checkpoint.config["architectures"] == ["Idefics3ForConditionalGeneration"]
    assert checkpoint.processor["max_image_size"] == {"longest_edge": 32}
    assert checkpoint.processor_settings["image_seq_len"] == 4
    assert checkpoint.generation["eos_token_id"] == checkpoint.token_id("<end_of_utterance>")
    assert checkpoint.chat_template.startswith("<|im_start|>")
    assert checkpoint.tokenizer().get_vocab_size() == checkpoint.config["text_config"]["vocab_size"]


def test_tensors_are_those_of_the_file(tiny_smolvlm: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm)
    expected = load_file(tiny_smolvlm / "model.safetensors")
    assert set(checkpoint.tensors) == set(expected)
    for name, values in expected.items():
        info = checkpoint.tensors[name]
        assert info.shape == tuple(values.shape)
        assert info.nbytes == values.numel() * 4
        assert torch.equal(checkpoint.tensor(name), values)


def test_shards(tiny_smolvlm_tied: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm_tied)
    assert {info.file.name for info in checkpoint.tensors.values()} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    assert {info.dtype for info in checkpoint.tensors.values()} == {"BF16"}
    assert "lm_head.weight" not in checkpoint.tensors
    assert checkpoint.tensor("model.text_model.norm.weight").shape == (256,)


def test_what_transformers_5_saves_is_read_alike(tiny_smolvlm: Path, copy: Path) -> None:
    from transformers import AutoProcessor

    for name in ("preprocessor_config.json", "processor_config.json", "chat_template.json"):
        (copy / name).unlink()
    AutoProcessor.from_pretrained(tiny_smolvlm, backend="pil").save_pretrained(copy)
    assert (copy / "chat_template.jinja").is_file()
    assert not (copy / "preprocessor_config.json").exists()
    before, after = open_checkpoint(tiny_smolvlm), open_checkpoint(copy)
    for field in ("size", "max_image_size", "image_mean", "image_std", "resample", "do_image_splitting"):
        assert after.processor[field] == before.processor[field]
    assert after.processor_settings["image_seq_len"] == 4
    assert after.chat_template == before.chat_template


OLDER = {
    "adapter merged in place": ("", "base_model.model."),
    "no wrapper": ("model.vision_model.", "vision_model."),
    "connector alone": ("model.connector.", "connector."),
    "nested language model": ("model.text_model.", "text_model.model."),
    "doubly nested language model": ("model.text_model.", "model.text_model.model."),
    "head below the language model": ("lm_head.", "text_model.lm_head."),
}


@pytest.mark.parametrize(("new", "old"), OLDER.values(), ids=OLDER.keys())
def test_older_tensor_names(tiny_smolvlm: Path, copy: Path, new: str, old: str) -> None:
    tensors = load_file(copy / "model.safetensors")
    renamed = {old + name.removeprefix(new) if name.startswith(new) else name: value for name, value in tensors.items()}
    assert set(renamed) != set(tensors)
    save_file(renamed, copy / "model.safetensors")
    checkpoint = open_checkpoint(copy)
    assert set(checkpoint.tensors) == set(tensors)
    for name, value in tensors.items():
        assert torch.equal(checkpoint.tensor(name), value)


def test_a_name_that_comes_twice(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["text_model.lm_head.weight"] = tensors["lm_head.weight"].clone()
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight.*is there twice"):
        open_checkpoint(copy)


def test_sha256_follows_weights_and_configuration(tiny_smolvlm: Path, copy: Path) -> None:
    first = open_checkpoint(tiny_smolvlm).sha256()
    assert open_checkpoint(copy).sha256() == first
    edit(copy / "generation_config.json", set_field("eos_token_id", 3))
    second = open_checkpoint(copy).sha256()
    tensors = load_file(copy / "model.safetensors")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    third = open_checkpoint(copy).sha256()
    assert len({first, second, third}) == 3


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}'.*is missing"):
        open_checkpoint(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "\x00\xff", "[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "processor_config.json"])
def test_what_is_not_a_json_object(copy: Path, name: str, text: str) -> None:
    (copy / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=f"{name}'.*is not"):
        open_checkpoint(copy)


@pytest.mark.parametrize("keep", [0, 4, 100, 3000, -1])
def test_truncated_weights(copy: Path, keep: int) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors'.*no whole safetensors file"):
        open_checkpoint(copy)


def test_a_header_that_asks_for_too_much(copy: Path) -> None:
    header = json.dumps({"lm_head.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (copy / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        open_checkpoint(copy)


def test_a_header_whose_shape_does_not_fit_its_bytes(copy: Path) -> None:
    header = json.dumps({"lm_head.weight": {"dtype": "F32", "shape": [3, 3], "data_offsets": [0, 8]}}).encode()
    (copy / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        open_checkpoint(copy)


def test_a_missing_shard_is_named(tiny_smolvlm_tied: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_smolvlm_tied, tmp_path / "copy"))
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json', weight_map.*missing: model-00002-of-00002\.safetensors"):
        open_checkpoint(copy)


def test_an_index_that_names_what_is_not_there(tiny_smolvlm_tied: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_smolvlm_tied, tmp_path / "copy"))
    index = copy / "model.safetensors.index.json"
    edit(index, lambda document: document["weight_map"].update(ghost="model-00001-of-00002.safetensors"))
    with pytest.raises(CheckpointError, match="not in their files: ghost"):
        open_checkpoint(copy)


@pytest.mark.parametrize("target", ["../model.safetensors", "/etc/passwd", 3])
def test_an_index_that_leaves_its_directory(tiny_smolvlm_tied: Path, tmp_path: Path, target: object) -> None:
    copy = Path(shutil.copytree(tiny_smolvlm_tied, tmp_path / "copy"))
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": target}}))
    with pytest.raises(CheckpointError, match="does not map tensors to files of this directory"):
        open_checkpoint(copy)


def test_pickles_are_never_opened(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    with pytest.raises(CheckpointError, match=r"pickles \(pytorch_model\.bin\).*save_pretrained"):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text_config.hidden_size", 0),
        ("text_config.hidden_size", -64),
        ("text_config.hidden_size", 1 << 40),
        ("text_config.hidden_size", "64"),
        ("text_config.hidden_size", 64.0),
        ("text_config.num_hidden_layers", True),
        ("text_config.num_hidden_layers", 10**9),
        ("text_config.num_key_value_heads", 3),
        ("text_config.vocab_size", []),
        ("vision_config.image_size", [32, 0]),
        ("vision_config.patch_size", 0),
        ("scale_factor", 0),
        ("text_config", 7),
        ("vision_config", []),
    ],
)
def test_absurd_sizes_are_named(copy: Path, field: str, value: object) -> None:
    edit(copy / "config.json", set_field(field, value))
    with pytest.raises(CheckpointError, match=rf"config\.json', {field}: is"):
        open_checkpoint(copy)


def test_fields_that_are_needed(copy: Path) -> None:
    checkpoint = open_checkpoint(copy)
    assert checkpoint.integer("text_config.hidden_size") == 64
    assert checkpoint.field("text_config.nothing", None) is None
    with pytest.raises(CheckpointError, match=r"config\.json', text_config\.nothing: is missing"):
        checkpoint.field("text_config.nothing")
    with pytest.raises(CheckpointError, match=r"text_config\.model_type: is 'llama', expected a whole number"):
        checkpoint.integer("text_config.model_type")
    edit(copy / "config.json", drop_field("model_type"))
    with pytest.raises(CheckpointError, match=r"config\.json', model_type: is missing"):
        open_checkpoint(copy)


def test_a_tokenizer_without_the_image_token(copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = copy / name
        file.write_text(file.read_text(encoding="utf-8").replace('"<image>"', '"<other>"'), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json', added_tokens: the token <image> is missing"):
        open_checkpoint(copy).token_id("<image>")


@pytest.mark.parametrize("text", ["{}", "not json", '{"model": {"type": "BPE", "vocab": 3}}'])
def test_a_file_that_is_no_tokenizer(copy: Path, text: str) -> None:
    (copy / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json'.*is no tokenizer"):
        open_checkpoint(copy).tokenizer()


def test_the_chat_template_is_found_in_all_its_places(copy: Path) -> None:
    (copy / "chat_template.json").unlink()
    with pytest.raises(CheckpointError, match="is missing; is this a base model"):
        _ = open_checkpoint(copy).chat_template
    edit(copy / "tokenizer_config.json", set_field("chat_template", [{"name": "default", "template": "named"}]))
    assert open_checkpoint(copy).chat_template == "named"
    edit(copy / "tokenizer_config.json", set_field("chat_template", "in the tokenizer"))
    assert open_checkpoint(copy).chat_template == "in the tokenizer"
    (copy / "chat_template.jinja").write_text("its own file")
    assert open_checkpoint(copy).chat_template == "its own file"


@pytest.mark.parametrize(
    ("card", "licence_file", "expected"),
    [
        ("---\nlicense: mit\n---\n", None, "mit"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", None, "qwen-research"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None, "mit, apache-2.0"),
        ("# nothing said\n", "Apache License\n  Version 2.0, January 2004", "apache-2.0"),
        ("---\nlicense: {{\n---\n", "MIT License\n\nCopyright", "mit"),
        (None, "Private terms", "see LICENSE"),
        (None, None, "unknown"),
    ],
)
def test_licence(copy: Path, card: str | None, licence_file: str | None, expected: str) -> None:
    (copy / "README.md").unlink()
    if card is not None:
        (copy / "README.md").write_text(card)
    if licence_file is not None:
        (copy / "LICENSE").write_text(licence_file)
    assert open_checkpoint(copy).licence == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, "GPTQ, 4 bits"),
        ({"quant_method": "awq", "bits": 4}, "AWQ, 4 bits"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
        ({"quant_method": "brand-new"}, "brand-new"),
    ],
)
def test_quantised_checkpoints_are_refused(copy: Path, settings: dict[str, Any], words: str) -> None:
    edit(copy / "config.json", set_field("quantization_config", settings))
    with pytest.raises(SourceError, match=rf"already quantised \({words}\).*export the unquantised model instead"):
        open_checkpoint(copy)
    edit(copy / "config.json", set_field("_name_or_path", "home/step-900"))  # a folder of somebody, as good as any
    with pytest.raises(SourceError, match="export the unquantised model instead"):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    ("card", "instead"),
    [
        ("base_model: org/the-base", "export its base 'org/the-base' instead"),
        ("base_model: [org/the-base]", "export its base 'org/the-base' instead"),
        ("base_model: [org/one, org/two]", "export the unquantised model instead"),
        ("base_model: ./the-base", "export the unquantised model instead"),
        ("base_model: null", "export the unquantised model instead"),
    ],
)
def test_the_model_card_names_the_base_of_a_quantised_checkpoint(copy: Path, card: str, instead: str) -> None:
    edit(copy / "config.json", set_field("quantization_config", {"quant_method": "awq", "bits": 4}))
    (copy / "README.md").write_text(f"---\n{card}\n---\n", encoding="utf-8")
    with pytest.raises(SourceError, match=instead):
        open_checkpoint(copy)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float8_e4m3fn])
def test_quantised_tensors_are_refused_without_a_word_in_the_configuration(copy: Path, dtype: torch.dtype) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros(523, 32).to(dtype)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(SourceError, match=r"already quantised \(the tensor lm_head\.weight is (U8|I8|F8_E4M3)\)"):
        open_checkpoint(copy)


def test_a_token_outside_the_vocabulary(copy: Path) -> None:
    edit(copy / "config.json", set_field("text_config.vocab_size", 500))
    with pytest.raises(CheckpointError, match=r"vocab_size: is 500, but the tokenizer's <image> has the id 521"):
        open_checkpoint(copy).token_id("<image>")
