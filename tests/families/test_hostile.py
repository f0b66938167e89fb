"""Damaged and hostile checkpoints of every family: one clear error that names the file and the field."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from family_makers import make_tiny
from safetensors.torch import load_file, save_file

from edge_mllm.errors import EdgeMLLMError
from edge_mllm_export.checkpoint.checkpoint import Checkpoint
from edge_mllm_export.errors import CheckpointError, TensorsError
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.families.registry import FAMILIES, find_family
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.write.sections import check_sections

NAMES = [family.name for family in FAMILIES]
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "patch_size",
    "image_size",
    "depth",
    "embed_dim",
    "num_heads",
    "spatial_merge_size",
)
ABSURD = (0, -3, 1 << 40, 1.5, "64", True, [])

FLAT_LACKS = ("text_config.model_type", "image_token_id")
"""Fields that a config.json without sections does not have."""

Change = Callable[[Path], None]


@pytest.fixture(scope="module", params=NAMES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(request.param, tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / source.name))


def read(path: Path, scratch: Path) -> Checkpoint:
    """As an export reads a checkpoint before it writes anything."""
    checkpoint = resolve_source(str(path), scratch)
    family = find_family(checkpoint)
    check_sections(checkpoint, family)
    check_tensors(checkpoint, family)
    return checkpoint


def refusal(path: Path) -> str:
    """The message of the one error that a checkpoint leads to."""
    with pytest.raises(EdgeMLLMError) as caught:
        read(path, path.parent)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 2000
    return message


def change(file: Path, dotted: str, value: Any) -> None:
    document = json.loads(file.read_text())
    *sections, last = dotted.split(".")
    place = document
    for section in sections:
        place = place[section]
    place[last] = value
    file.write_text(json.dumps(document))


def test_the_whole_one_is_read(source: Path, tmp_path: Path) -> None:
    assert read(source, tmp_path).path == source


def test_absurd_sizes(copy: Path) -> None:
    config = copy / "config.json"
    whole = config.read_text()
    document = json.loads(whole)
    text = {"text_config.": document["text_config"]} if "text_config" in document else {"": document}
    sections = text | {"vision_config.": document["vision_config"]}
    fields = [prefix + name for prefix, section in sections.items() for name in SIZES if name in section]
    assert len(fields) >= 8
    for number, field in enumerate(fields):
        for value in (ABSURD[number % len(ABSURD)], ABSURD[(number + 3) % len(ABSURD)]):
            change(config, field, value)
            assert f"config.json', {field}: is {value!r}, expected a whole number" in refusal(copy)
            config.write_text(whole)


@pytest.mark.parametrize("section", ["text_config", "vision_config"])
@pytest.mark.parametrize("value", [None, 7, []])
def test_a_section_that_is_none(copy: Path, section: str, value: object) -> None:
    change(copy / "config.json", section, value)
    assert f"config.json', {section}: is not a JSON object" in refusal(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text_config.hidden_act", "no such function"),
        ("text_config.model_type", "no such model"),
        ("text_config.attention_dropout", "x"),
        ("text_config.rms_norm_eps", 0),
        ("text_config.rms_norm_eps", "x"),
        ("image_token_id", "x"),
        ("model_type", "no such model"),
    ],
)
def test_values_that_no_model_can_have(copy: Path, field: str, value: object) -> None:
    whole = json.loads((copy / "config.json").read_text())
    if "text_config" not in whole:
        if field in FLAT_LACKS:
            pytest.skip("a language model's fields lie at the top of this family's config.json")
        field, whole = field.removeprefix("text_config."), whole | {"text_config": whole}
    field = {"image_token_id": "image_token_index"}.get(field, field) if "image_token_index" in whole else field
    if field == "text_config.hidden_act" and "hidden_activation" in whole["text_config"]:
        field = "text_config.hidden_activation"
    if field == "text_config.rms_norm_eps" and "rms_norm_eps" not in whole["text_config"]:
        field = "text_config.layer_norm_eps"
    change(copy / "config.json", field, value)
    message = refusal(copy)
    assert "config.json', " in message
    section, _, name = field.rpartition(".")
    assert name in message or str(value) in message or f"{section}: makes no model" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rescale_factor", 0),
        ("rescale_factor", "x"),
        ("image_mean", [0.5, 0.5]),
        ("image_mean", "x"),
        ("image_mean", [0.5, 0.5, float("nan")]),
        ("image_std", [0.5, 0, 0.5]),
        ("resample", 9),
        ("resample", []),
        ("do_resize", "no"),
    ],
)
def test_image_processing_that_makes_no_sense(copy: Path, field: str, value: object) -> None:
    file = copy / "preprocessor_config.json"
    if "norm_mean" in json.loads(file.read_text()):
        if not field.startswith("image_"):
            pytest.skip("the publisher's class has no such field")
        field = field.replace("image_", "norm_")
    change(file, field, value)
    assert f"preprocessor_config.json', {field}: is" in refusal(copy)


@pytest.mark.parametrize("field", ["size", "crop_size", "max_image_size", "min_pixels", "patch_size"])
@pytest.mark.parametrize("value", [0, -5, 1 << 50, "x"])
def test_absurd_picture_sizes(copy: Path, field: str, value: object) -> None:
    """Where the processor has the field; every number in it."""
    file = copy / "preprocessor_config.json"
    present = json.loads(file.read_text()).get(field)
    if present is None:
        pytest.skip("this family's processor has no such field")
    change(file, field, dict.fromkeys(present, value) if isinstance(present, dict) else value)
    assert f"preprocessor_config.json', {field}" in refusal(copy)


def test_missing_and_misshapen_tensors(copy: Path) -> None:
    file = copy / "model.safetensors"
    tensors = load_file(file)
    first, *_, last = sorted(name for name, tensor in tensors.items() if tensor.ndim > 1)
    save_file({name: value for name, value in tensors.items() if name != first}, file)
    assert "1 missing: " in refusal(copy)
    save_file({**tensors, last: tensors[last][:-1].clone()}, file)
    with pytest.raises(TensorsError, match=r"1 wrong shape: \S+ is \[.*\], expected \[.*\]"):
        read(copy, copy.parent)
    save_file({**tensors, "model.stranger.weight": tensors[last].clone()}, file)
    assert "1 left over: " in refusal(copy)
    save_file({"lm_head.weight": tensors[last].clone()}, file)
    assert "more" in refusal(copy)


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, (1 << 60).to_bytes(8, "little") + b"{}", b"\x02\0\0\0\0\0\0\0{]"])
def test_a_broken_safetensors_header(copy: Path, data: bytes) -> None:
    (copy / "model.safetensors").write_bytes(data)
    assert "model.safetensors': is no whole safetensors file" in refusal(copy)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_broken_json(copy: Path, file: str) -> None:
    (copy / file).write_text('{"a": ')
    assert f"{file}': is no" in refusal(copy)


def test_a_tokenizer_without_the_image_token(copy: Path, source: Path, tmp_path: Path) -> None:
    opened = resolve_source(str(source), tmp_path)
    token = find_family(opened).prompt(opened).image_token
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):  # any of them can declare it
        text = (copy / name).read_text() if (copy / name).is_file() else "{}"
        (copy / name).write_text(text.replace(json.dumps(token), '"<other>"'))
    assert f"tokenizer.json', added_tokens: the token {token} is missing" in refusal(copy)


@pytest.mark.parametrize("value", ["x", 1.5, [3, "x"], {}])
def test_stop_tokens_that_are_none(copy: Path, value: object) -> None:
    change(copy / "generation_config.json", "eos_token_id", value)
    assert "generation_config.json', eos_token_id: is" in refusal(copy)


def test_errors_are_checkpoint_errors(copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json'.*is missing"):
        read(copy, copy.parent)
