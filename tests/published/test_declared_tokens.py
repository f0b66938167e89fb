"""Tokens of published directories that tokenizer.json lacks: those that transformers' tokenizer has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import BPE

from edge_mllm.bundle.published.tokenizer import read_tokenizer
from edge_mllm.errors import BundleError

TEXTS = ("a<mark>b", "a <mark>  b <x>", "<mark><mark>", "x <|end|>  y")


def write(directory: Path, settings: dict[str, Any], **files: dict[str, Any]) -> Path:
    vocabulary = {text: number for number, text in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    tokenizer.save(str(directory / "tokenizer.json"))
    for name, document in {"tokenizer_config": settings, **files}.items():
        (directory / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"eos_token": "<|end|>"},
        {"added_tokens_decoder": {"257": {"content": "<mark>", "special": True, "rstrip": True, "normalized": False}}},
        {"added_tokens_decoder": {"256": {"content": "<|end|>", "special": True, "rstrip": True, "normalized": False}}},
        {"additional_special_tokens": ["<mark>", "<x>"]},
        {"extra_special_tokens": {"mark_token": "<mark>"}, "pad_token": {"__type": "AddedToken", "content": "<x>"}},
        {"mark_token": "<mark>", "pad_token": "<x>"},
    ],
)
def test_they_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    from transformers import PreTrainedTokenizerFast

    write(tmp_path, settings)
    theirs, ours = PreTrainedTokenizerFast.from_pretrained(tmp_path), read_tokenizer(tmp_path, 300)
    assert {text: ours.encode(text).ids for text in TEXTS} == {text: theirs(text)["input_ids"] for text in TEXTS}


def test_older_directories_have_them_in_a_file_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, {}, special_tokens_map={"additional_special_tokens": ["<mark>"]})
    assert read_tokenizer(tmp_path, 300).encode("<mark>").ids == [257]


def test_a_placeholder_behind_the_table_stays_text(tmp_path: Path) -> None:
    write(tmp_path, {"added_tokens_decoder": {"257": {"content": "<mark>", "special": True}}, "pad_token": "<x>"})
    tokenizer = read_tokenizer(tmp_path, 257)
    assert len(tokenizer.encode("<mark>").ids) == 6
    assert tokenizer.get_vocab_size(with_added_tokens=True) == 257


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"260": {"content": "<mark>"}}, r"added_tokens_decoder.260: is <mark>, which would get the id 257"),
        ({"x": {"content": "<mark>"}}, r"added_tokens_decoder.x: is not an id"),
        ({"257": 3}, r"added_tokens_decoder.257: is not an id with a token"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, entries: dict[str, Any], says: str) -> None:
    with pytest.raises(BundleError, match=says):
        read_tokenizer(write(tmp_path, {"added_tokens_decoder": entries}), 300)
