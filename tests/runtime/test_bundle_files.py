"""Bundles: written and read back exactly, and every kind of damage named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_specs import make_spec, write_bundle

from edge_mllm.bundle.checked import sha256_of
from edge_mllm.bundle.files import read_spec, spec_to_dict, write_spec
from edge_mllm.errors import (
    BundleError,
    BundleVersionError,
    ModelNotFoundError,
    PartChangedError,
    PartMismatchError,
    PartMissingError,
)
from edge_mllm.session.files import open_bundle


@pytest.fixture(scope="module")
def whole(tiny_smolvlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "whole.edge", tiny_smolvlm)


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy.edge"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((bundle / "bundle.json").read_text())
    change(data)
    (bundle / "bundle.json").write_text(json.dumps(data))


def put(data: dict[str, Any], where: str, value: Any) -> None:
    *path, last = where.split(".")
    for name in path:
        data = data[name]
    data[last] = value


def test_a_spec_is_read_back_exactly(tiny_smolvlm: Path, tmp_path: Path) -> None:
    spec = make_spec(tiny_smolvlm)
    assert read_spec(spec_to_dict(spec)) == spec
    assert read_spec(json.loads(json.dumps(spec_to_dict(spec)))) == spec
    write_spec(spec, tmp_path / "bundle.json")
    text = (tmp_path / "bundle.json").read_text("utf-8")
    assert read_spec(json.loads(text)) == spec
    assert text.endswith("}\n")
    assert json.loads(text)["image"]["rescale"] == 1 / 255


def test_a_whole_bundle_opens(whole: Path) -> None:
    for check in (True, False):
        opened = open_bundle(whole, check_hashes=check)
        assert opened.path == whole
        assert opened.spec.engines == ("gguf",)
        assert opened.file("vision") == whole / "vision.onnx"
    assert open_bundle(str(whole)).spec == opened.spec
    assert "<|im_start|>" in opened.chat_template()
    assert opened.tokenizer().token_to_id("<image>") == opened.spec.prompt.image_token_id
    with pytest.raises(BundleError, match="no part 'mmproj'"):
        opened.file("mmproj")


def test_truncation_and_padding_of_the_tokenizer_are_off(bundle: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(bundle / "tokenizer.json"))
    loaded = open_bundle_unhashed(bundle).tokenizer()
    assert 2 < len(loaded.encode("one two three four five").ids) < 64


def open_bundle_unhashed(bundle: Path) -> Any:
    """Open with the sizes and hashes of the files as they are now."""

    def refresh(data: dict[str, Any]) -> None:
        for part in data["parts"].values():
            part["bytes"] = (bundle / part["file"]).stat().st_size
            part["sha256"] = sha256_of(bundle / part["file"])

    edit(bundle, refresh)
    return open_bundle(bundle)


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such file or directory") as caught:
        open_bundle(tmp_path / "missing.edge")
    assert str(tmp_path / "missing.edge") in str(caught.value)
    with pytest.raises(ModelNotFoundError, match=r"no bundle\.json"):
        open_bundle(tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ModelNotFoundError):
        open_bundle(file)


@pytest.mark.parametrize("name", ["vision.onnx", "decoder.gguf", "tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize("check", [True, False])
def test_a_missing_file(bundle: Path, name: str, check: bool) -> None:
    (bundle / name).unlink()
    with pytest.raises(PartMissingError, match=name):
        open_bundle(bundle, check_hashes=check)


@pytest.mark.parametrize("name", ["vision.onnx", "decoder.gguf", "tokenizer.json", "chat_template.jinja"])
def test_a_changed_byte(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(PartChangedError, match=f"{name}.*SHA-256"):
        open_bundle(bundle)
    assert open_bundle(bundle, check_hashes=False)
    (bundle / name).write_bytes(data[:-1])
    with pytest.raises(PartChangedError, match=f"{name}.*bytes instead of"):
        open_bundle(bundle, check_hashes=False)


def test_a_hash_may_be_written_in_capitals(bundle: Path) -> None:
    edit(bundle, lambda data: put(data, "parts.vision.sha256", data["parts"]["vision"]["sha256"].upper()))
    assert open_bundle(bundle)


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "a/../../outside", "..", "", "a\\..\\b", "a\0b", "C:\\x", "\\\\host\\x"]
)
def test_a_path_that_leaves_the_bundle(bundle: Path, path: str) -> None:
    (bundle.parent / "outside").write_text("secret")
    edit(bundle, lambda data: put(data, "parts.vision.file", path))
    with pytest.raises(BundleError, match="leaves the bundle"):
        open_bundle(bundle)


def test_links_stay_inside(bundle: Path) -> None:
    outside = bundle.parent / "outside.gguf"
    shutil.move(bundle / "decoder.gguf", outside)
    (bundle / "decoder.gguf").symlink_to(outside)
    with pytest.raises(BundleError, match="leaves the bundle"):
        open_bundle(bundle)
    (bundle / "decoder.gguf").unlink()
    shutil.move(outside, bundle / "real.gguf")
    (bundle / "decoder.gguf").symlink_to("real.gguf")
    assert open_bundle(bundle)
    moved = bundle.parent / "link.edge"
    moved.symlink_to(bundle)
    assert open_bundle(moved)
    (bundle / "vision.onnx").unlink()
    (bundle / "vision.onnx").symlink_to("vision.onnx")
    with pytest.raises(BundleError, match="cannot be followed"):
        open_bundle(bundle)


def test_a_directory_is_no_part(bundle: Path) -> None:
    (bundle / "vision.onnx").unlink()
    (bundle / "vision.onnx").mkdir()
    with pytest.raises(PartMissingError):
        open_bundle(bundle)


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5])
def test_another_schema_version(bundle: Path, version: Any) -> None:
    edit(bundle, lambda data: put(data, "schema_version", version))
    with pytest.raises(BundleVersionError, match=r"this release reads 1"):
        open_bundle(bundle)
    edit(bundle, lambda data: data.pop("schema_version"))
    with pytest.raises(BundleVersionError, match="None"):
        open_bundle(bundle)


WRONG_FIELDS = {
    "decoder.n_embd": ["16", 16.5, None, [16], True],
    "image.rescale": ["0.1", None, True, 10**400],
    "image.mean": [[0.5, 0.5], [0.5] * 4, 0.5, "abc", [0.5, 0.5, "x"]],
    "image.resample": ["cubic", 3, None],
    "image.tiler.split": [1, "yes", None],
    "image.tiler.kind": ["another_grid", None, [], {}],
    "image.tiler": [[], None, "grid"],
    "prompt.stop_token_ids": [7, ["7"], [None], {"a": 1}],
    "prompt.special_tokens": [["a"], {"bos_token": 3}],
    "prompt.layout.after_row": [None, 3],
    "prompt.bos_token_id": ["3", 1.5],
    "decoder.positions": ["spiral", 1, [], {}],
    "parts": [[], None, {"vision": "vision.onnx"}],
    "parts.vision.bytes": ["12", 1.5, None],
    "source.revision": [3, False],
    "recipe": [None, [1]],
    "recipe.vision": [5, None, "fp32"],
    "exporter": [{"torch": 2}],
}


@pytest.mark.parametrize(
    ("where", "value"), [(where, value) for where, values in WRONG_FIELDS.items() for value in values], ids=str
)
def test_a_field_of_a_wrong_type_is_named(bundle: Path, where: str, value: Any) -> None:
    edit(bundle, lambda data: put(data, where, value))
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["name", "image", "image.tiler.tile", "decoder.n_vocab", "parts.vision.sha256"])
def test_a_missing_field_is_named(bundle: Path, where: str) -> None:
    def remove(data: dict[str, Any]) -> None:
        *path, last = where.split(".")
        for name in path:
            data = data[name]
        del data[last]

    edit(bundle, remove)
    with pytest.raises(BundleError, match=where.replace(".", r"\.") + ": the field is missing"):
        open_bundle(bundle)


@pytest.mark.parametrize("where", ["colour", "image.crop", "decoder.experts", "parts.vision.url"])
def test_an_unknown_field_is_named(bundle: Path, where: str) -> None:
    edit(bundle, lambda data: put(data, where, 1))
    with pytest.raises(BundleError, match=where.replace(".", r"\.") + ": unknown field"):
        open_bundle(bundle)


def test_fields_with_a_default_may_be_absent(bundle: Path) -> None:
    def remove(data: dict[str, Any]) -> None:
        del data["decoder"]["positions"], data["prompt"]["bos_token_id"], data["image"]["tiler"]["split"]

    expected = open_bundle(bundle).spec
    edit(bundle, remove)
    assert open_bundle(bundle).spec == expected


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"x"', "\xff", '{"schema_version": NaN}', "[" * 100_000, '{"schema_version": Infinity}'],
    ids=range(9),
)
def test_text_that_is_no_bundle(bundle: Path, text: str) -> None:
    (bundle / "bundle.json").write_text(text, encoding="latin-1")
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert "\n" not in str(caught.value)


def test_numbers_beyond_the_floats(bundle: Path) -> None:
    text = (bundle / "bundle.json").read_text().replace('"rescale": 0.00392156862745098', '"rescale": 1e999')
    assert "1e999" in text
    (bundle / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"image\.rescale: inf is not a finite number"):
        open_bundle(bundle)


def test_a_huge_specification_is_not_read(bundle: Path) -> None:
    with (bundle / "bundle.json").open("a") as stream:
        stream.write(" " * (9 << 20))
    with pytest.raises(BundleError, match="larger than 8 MiB"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        ("decoder.n_embd", 0, "not a sane size"),
        ("decoder.n_embd", -16, "not a sane size"),
        ("decoder.n_vocab", 1 << 40, "not a sane size"),
        ("decoder.context_length", 0, "not a sane size"),
        ("decoder.head_dim", 10**100, "not a sane size"),
        ("decoder.mrope_sections", [2, -2], "not a sane size"),
        ("vision.tokens_per_tile", 0, "not a sane size"),
        ("image.tiler.tile", -1, "not a sane size"),
        ("image.tiler.tile", 64, "cuts 64x64 tiles but vision takes 32x32"),
        ("image.tiler.longest_edge", 1 << 30, "not a sane size"),
        ("image.tiler.longest_edge", 4096, "would need 16384 tiles"),
        ("vision.tile_width", 64, "cuts 32x32 tiles but vision takes 64x32"),
        ("image.std", [0.5, 0, 0.5], "not above zero"),
        ("image.rescale", 0, "not above zero"),
        ("prompt.image_token_id", -1, "outside the vocabulary"),
        ("prompt.image_token_id", 1 << 20, "outside the vocabulary"),
        ("prompt.stop_token_ids", [3, 1 << 20], "outside the vocabulary"),
        ("prompt.bos_token_id", 1 << 20, "outside the vocabulary"),
    ],
    ids=str,
)
def test_numbers_that_make_no_sense(bundle: Path, where: str, value: Any, reason: str) -> None:
    edit(bundle, lambda data: put(data, where, value))
    with pytest.raises(BundleError, match=reason) as caught:
        open_bundle(bundle)
    assert where.split(".")[0] in str(caught.value)


@pytest.mark.parametrize("part", ["vision", "tokenizer", "chat_template"])
def test_a_part_that_is_not_named(bundle: Path, part: str) -> None:
    edit(bundle, lambda data: data["parts"].pop(part))
    with pytest.raises(BundleError, match=f"names no {part}"):
        open_bundle(bundle)


def test_decoders(bundle: Path) -> None:
    decoder = json.loads((bundle / "bundle.json").read_text())["parts"]["decoder_gguf"]
    edit(bundle, lambda data: put(data, "parts.decoder_onnx", decoder))
    with pytest.raises(BundleError, match="names no embeddings"):
        open_bundle(bundle)
    edit(bundle, lambda data: put(data, "parts.embeddings", decoder))
    assert open_bundle(bundle).spec.engines == ("onnx", "gguf")
    edit(bundle, lambda data: (data["parts"].pop("decoder_onnx"), data["parts"].pop("decoder_gguf")))
    with pytest.raises(BundleError, match="no decoder"):
        open_bundle(bundle)


def test_a_tokenizer_of_another_model(bundle: Path) -> None:
    opened = open_bundle(bundle)
    smaller = dataclasses.replace(opened.spec.decoder, n_vocab=opened.spec.decoder.n_vocab - 1)
    with pytest.raises(PartMismatchError, match="tokens, the decoder"):
        dataclasses.replace(opened, spec=dataclasses.replace(opened.spec, decoder=smaller)).tokenizer()
    for token, number in (("<image>", 3), ("<picture>", opened.spec.prompt.image_token_id)):
        prompt = dataclasses.replace(opened.spec.prompt, image_token=token, image_token_id=number)
        with pytest.raises(PartMismatchError, match=token):
            dataclasses.replace(opened, spec=dataclasses.replace(opened.spec, prompt=prompt)).tokenizer()


def test_text_parts_that_cannot_be_read(bundle: Path) -> None:
    (bundle / "tokenizer.json").write_text("{}")
    (bundle / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    opened = open_bundle_unhashed(bundle)
    with pytest.raises(BundleError, match="tokenizer cannot be read"):
        opened.tokenizer()
    with pytest.raises(BundleError, match="not UTF-8"):
        opened.chat_template()
