"""A SentencePiece BPE vocabulary as tokenizer.json, so that a checkpoint without one can be exported.

The ids are those of the sentencepiece library: text is cut at the added tokens first, and SentencePiece sees what is
between them. The file is read with that library's own protocol buffer. Merges are made here, because the converters of
transformers 5.23 either refuse such a model or order its merges by id, which gives other ids: every way to make a piece
of two is a merge, and the piece with the highest score comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from sentencepiece.sentencepiece_model_pb2 import ModelProto

_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
_LIMIT = 1 << 26
"""Bytes; a vocabulary of 256,000 pieces has about 4 MB."""
_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": _MARK}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True)
class AddedToken:
    """A token that text is cut at before SentencePiece sees it."""

    id: int
    text: str
    special: bool
    flags: dict[str, bool]
    """``single_word``, ``lstrip``, ``rstrip``, ``normalized``."""


def read_sentencepiece(path: Path) -> ModelProto:
    """Read a ``tokenizer.model``.

    Raises:
        CheckpointError: The file is missing, too large, damaged, or has no pieces.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    if not path.is_file():
        raise CheckpointError(path, "", "is missing")
    if path.stat().st_size > _LIMIT:
        raise CheckpointError(path, "", "is too large for a vocabulary")
    try:
        model = ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        raise CheckpointError(path, "", f"is no SentencePiece model ({error})") from error
    if not model.pieces:
        raise CheckpointError(path, "", "is no SentencePiece model (it has no pieces)")
    return model


def convert_sentencepiece(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Content of tokenizer.json for a ``tokenizer.model``.

    Args:
        path: The model.
        settings: tokenizer_config.json: ``added_tokens_decoder``, ``bos_token``, ``add_bos_token``, ...

    Raises:
        CheckpointError: The model cuts text in a way that tokenizer.json cannot express exactly, or the added tokens
            contradict it.
    """
    model = read_sentencepiece(path)
    _check_exact(path, model)
    added = [*_added_tokens(path, settings)]
    texts = [piece.piece for piece in model.pieces]
    for token in added:
        if token.id < len(texts):
            texts[token.id] = token.text
    vocabulary = {text: number for number, text in enumerate(texts)}
    if len(vocabulary) != len(texts):
        twice = next(text for number, text in enumerate(texts) if vocabulary[text] != number)
        raise CheckpointError(path, "pieces", f"{twice!r} is there twice")
    listed = {token.id for token in added}
    added += [
        AddedToken(number, piece.piece, False, dict.fromkeys(_FLAGS, False))
        for number, piece in enumerate(model.pieces)
        if piece.type == piece.USER_DEFINED and number not in listed
    ]
    document = _document(model, vocabulary, sorted(added, key=lambda token: token.id), [*_merges(path, model, listed)])
    document["post_processor"] = _surrounding(path, settings, vocabulary)
    _check_ids(path, document)
    return document


def _check_exact(path: Path, model: ModelProto) -> None:
    """Refuse what tokenizer.json, or llama.cpp's reading of it, does otherwise."""
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    user_defined = any(piece.type == piece.USER_DEFINED for piece in model.pieces)
    byte_pieces = sum(piece.type == piece.BYTE for piece in model.pieces)
    unknown = sum(piece.type == piece.UNKNOWN for piece in model.pieces)
    algorithm = trainer.model_type
    for field, wrong, reason in (
        ("trainer_spec.model_type", algorithm != trainer.BPE, f"is {algorithm}, only BPE (2) can be converted"),
        ("trainer_spec.byte_fallback", byte_pieces != 256, f"gives {byte_pieces} byte pieces, expected 256"),
        ("pieces", unknown != 1, f"has {unknown} unknown pieces, expected one"),
        ("trainer_spec.treat_whitespace_as_suffix", trainer.treat_whitespace_as_suffix, "is true"),
        (
            "normalizer_spec.precompiled_charsmap",
            bool(normalizer.precompiled_charsmap),
            "is not empty: text is changed before cutting",
        ),
        ("normalizer_spec.remove_extra_whitespaces", normalizer.remove_extra_whitespaces, "is true: text loses spaces"),
        ("normalizer_spec.escape_whitespaces", not normalizer.escape_whitespaces, "is false"),
        (
            "normalizer_spec.add_dummy_prefix",
            normalizer.add_dummy_prefix and user_defined,
            "is true with user-defined pieces, behind which tokenizer.json would put it too",
        ),
    ):
        if wrong:
            raise CheckpointError(path, field, reason)


def _added_tokens(path: Path, settings: dict[str, Any]) -> Iterator[AddedToken]:
    file = path.with_name("tokenizer_config.json")
    given = settings.get("added_tokens_decoder", {})
    if not isinstance(given, dict):
        raise CheckpointError(file, "added_tokens_decoder", "is not a JSON object")
    for number, entry in given.items():
        if not (number.isdecimal() and isinstance(entry, dict) and isinstance(entry.get("content"), str)):
            raise CheckpointError(file, f"added_tokens_decoder.{number}", "is not an id with a token")
        flags = {name: bool(entry.get(name, False)) for name in _FLAGS}
        yield AddedToken(int(number), entry["content"], bool(entry.get("special", False)), flags)


def _merges(path: Path, model: ModelProto, replaced: set[int]) -> Iterator[list[str]]:
    """Pairs in the order in which SentencePiece prefers them."""
    numbers = {
        piece.piece: number
        for number, piece in enumerate(model.pieces)
        if piece.type == piece.NORMAL and number not in replaced
    }
    unused = {piece.piece for piece in model.pieces if piece.type == piece.UNUSED}
    ranked: list[tuple[float, int, int, str, str]] = []
    for text, number in numbers.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in unused or right in unused:
                reason = f"{text!r} is made of a piece marked unused, a detour that tokenizer.json does not know"
                raise CheckpointError(path, "pieces", reason)
            if left in numbers and right in numbers:
                ranked.append((-model.pieces[number].score, -len(left), -len(right), left, right))
    ranked.sort(key=lambda entry: entry[:3])
    for *_, left, right in ranked:
        yield [left, right]


def _document(
    model: ModelProto, vocabulary: dict[str, int], added: list[AddedToken], merges: list[list[str]]
) -> dict[str, Any]:
    prefixed = model.normalizer_spec.add_dummy_prefix
    prefix = [{"type": "Prepend", "prepend": _MARK}] if prefixed else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefixed else []
    unknown = next(piece.piece for piece in model.pieces if piece.type == piece.UNKNOWN)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token.id, "content": token.text, "special": token.special, **token.flags} for token in added
        ],
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, _SPACES]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _MARK}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def _surrounding(path: Path, settings: dict[str, Any], vocabulary: dict[str, int]) -> dict[str, Any] | None:
    """The step that puts the begin and end tokens around a text; as published tokenizers do by default, begin alone."""
    asked = {"bos_token": settings.get("add_bos_token", True), "eos_token": settings.get("add_eos_token", False)}
    tokens: dict[str, str] = {}
    for name, wanted in asked.items():
        value = settings.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if wanted and text is not None:
            if text not in vocabulary:
                raise CheckpointError(path.with_name("tokenizer_config.json"), name, f"{text!r} is not a piece")
            tokens[name] = text
    if not tokens:
        return None

    def mark(name: str, number: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": tokens[name], "type_id": number}}] if name in tokens else []

    def around(sequence: str, number: int) -> list[dict[str, Any]]:
        text: dict[str, Any] = {"Sequence": {"id": sequence, "type_id": number}}
        return [*mark("bos_token", number), text, *mark("eos_token", number)]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {
            text: {"id": text, "ids": [vocabulary[text]], "tokens": [text]} for text in sorted(tokens.values())
        },
    }


def _check_ids(path: Path, document: dict[str, Any]) -> None:
    """Every added token must have its id: the tokenizers library numbers those behind the vocabulary itself."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(document))
    file = path.with_name("tokenizer_config.json")
    for entry in document["added_tokens"]:
        found = tokenizer.token_to_id(entry["content"])
        if found != entry["id"]:
            reason = f"{entry['content']!r} would get the id {found}: it is a piece already, or ids are left out"
            raise CheckpointError(file, f"added_tokens_decoder.{entry['id']}", reason)
