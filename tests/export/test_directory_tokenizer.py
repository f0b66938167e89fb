"""The tokenizer that a directory's files give together, and how far the class that they name departs from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.tokenizer.directory import class_tokenizer, file_tokenizer, read_directory_tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def write(directory: Path, settings: dict[str, Any], *, digits: bool = False, nfc: bool = False) -> Path:
    """A byte-level tokenizer with three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("\u0120", "\u0120"), ("1", "2"), ("\u0120", "1")]
    vocabulary = {text: number for number, text in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    single = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([single, level]) if digits else level
    tokenizer.decoder = ByteLevelDecoder()
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (directory / "config.json").write_text(json.dumps({"model_type": "idefics3"}), encoding="utf-8")
    return directory


def encode(text: str, content: str) -> list[int]:
    ids: list[int] = Tokenizer.from_str(content).encode(text).ids
    return ids


def test_a_complete_file_is_kept_to_the_byte(tmp_path: Path) -> None:
    found = read_directory_tokenizer(write(tmp_path, {"eos_token": "<|im_end|>"}))
    assert found.text == (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    assert found.declared == ()
    assert found.names["eos_token"] == "<|im_end|>"


@pytest.mark.parametrize(
    "settings",
    [
        {"added_tokens_decoder": {"262": {"content": "<mark>", "special": True, "normalized": False, "lstrip": False}}},
        {"added_tokens_decoder": {"262": {"content": "<mark>", "special": False, "normalized": False, "rstrip": True}}},
        {"additional_special_tokens": ["<mark>"]},
        {"extra_special_tokens": {"mark_token": "<mark>"}},
        {"extra_special_tokens": ["<mark>"]},
        {"mark_token": "<mark>"},
        {"pad_token": "<mark>"},
    ],
)
@pytest.mark.parametrize("text", ["a<mark>b", "a <mark>  b", "<mark><mark>", "x <|im_end|> y"])
def test_tokens_that_only_the_settings_declare_are_tokens(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    found = read_directory_tokenizer(write(tmp_path, settings))
    assert found.declared == ("<mark>",)
    theirs = class_tokenizer(tmp_path)
    assert encode(text, found.text) == theirs(text)["input_ids"]
    assert 262 in encode("a<mark>b", found.text)


@pytest.mark.parametrize("file", ["special_tokens_map.json", "added_tokens.json"])
def test_older_files_declare_tokens_too(tmp_path: Path, file: str) -> None:
    write(tmp_path, {})
    document: dict[str, Any] = {"additional_special_tokens": ["<mark>"]}
    (tmp_path / file).write_text(json.dumps({"<mark>": 262} if file == "added_tokens.json" else document))
    found = read_directory_tokenizer(tmp_path)
    assert encode("a<mark>b", found.text) == class_tokenizer(tmp_path)("a<mark>b")["input_ids"]
    assert encode("a<mark>b", found.text)[1] == 262


def test_a_declared_id_that_cannot_be_given_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"added_tokens_decoder": {"300": {"content": "<mark>", "special": True}}})
    with pytest.raises(CheckpointError, match=r"added_tokens_decoder.300: is <mark>.*would get the id 262"):
        read_directory_tokenizer(tmp_path)


def test_a_class_that_forgets_the_digits_is_not_followed(tmp_path: Path) -> None:
    """tokenizer.json is what the model was trained with: transformers 4 and every other library read it as it is."""
    write(tmp_path, {"tokenizer_class": "GPT2Tokenizer"}, digits=True)
    found, theirs = read_directory_tokenizer(tmp_path), class_tokenizer(tmp_path)
    assert type(theirs).__name__ == "GPT2Tokenizer"
    assert encode("a  12", found.text) != theirs("a  12")["input_ids"]
    assert encode("a  12", found.text) == file_tokenizer(tmp_path)("a  12")["input_ids"]
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert encode("a  12", found.text) == plain.encode("a  12").ids


def test_a_class_that_normalises_what_the_file_does_not(tmp_path: Path) -> None:
    write(tmp_path, {"tokenizer_class": "Qwen2Tokenizer"})
    found, theirs = read_directory_tokenizer(tmp_path), class_tokenizer(tmp_path)
    assert encode("e\u0301", found.text) != theirs("e\u0301")["input_ids"]
    write(tmp_path, {"tokenizer_class": "Qwen2Tokenizer"}, nfc=True)
    assert encode("e\u0301", read_directory_tokenizer(tmp_path).text) == theirs("e\u0301")["input_ids"]


def test_padding_and_cutting_are_left_out_of_what_is_opened(tmp_path: Path) -> None:
    write(tmp_path, {})
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(read_directory_tokenizer(tmp_path).backend.encode("abcde").ids) == 5


def test_vocabulary_and_merges_without_a_tokenizer_json(tmp_path: Path) -> None:
    write(tmp_path, {"tokenizer_class": "Qwen2Tokenizer"}, nfc=True)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer.json'.*is missing"):
        read_directory_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(document["model"]["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in document["model"]["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    found = read_directory_tokenizer(tmp_path)
    assert encode("a  12 e\u0301", found.text) == class_tokenizer(tmp_path)("a  12 e\u0301")["input_ids"]


def test_settings_that_cannot_be_read_with_the_file_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"added_tokens_decoder": {"x": 3}})
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json'.*cannot be read by transformers"):
        read_directory_tokenizer(tmp_path)


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    write(tmp_path, {})
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is no tokenizer"):
        read_directory_tokenizer(tmp_path)
