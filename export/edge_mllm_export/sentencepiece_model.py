"""A SentencePiece ``tokenizer.model``, read without the sentencepiece library.

The file is a protocol buffer; its fields are those of sentencepiece_model.proto (google/sentencepiece, Apache-2.0), and
the few that decide how text is cut are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from edge_mllm_export.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT = 1 << 26
"""Bytes; a vocabulary of 256,000 pieces has about 4 MB."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""
Value = int | bytes


class PieceKind(IntEnum):
    """``ModelProto.SentencePiece.Type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its place in the list is its id."""

    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """What decides how text becomes ids."""

    pieces: tuple[Piece, ...]
    algorithm: int
    """``TrainerSpec.model_type``: 1 unigram, 2 BPE, 3 word, 4 character."""
    space_as_suffix: bool
    charsmap: bytes
    """A table of replacements made before cutting; empty for none."""
    adds_dummy_prefix: bool
    removes_extra_spaces: bool
    escapes_spaces: bool


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a ``tokenizer.model``.

    Raises:
        CheckpointError: The file is missing, too large, damaged, or has no pieces.
    """
    if not path.is_file():
        raise CheckpointError(path, "", "is missing")
    if path.stat().st_size > _LIMIT:
        raise CheckpointError(path, "", "is too large for a vocabulary")
    try:
        return _model(path.read_bytes())
    except (ValueError, TypeError, struct.error) as error:
        raise CheckpointError(path, "", f"is no SentencePiece model ({error})") from error


def _model(data: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(dict(_fields(_as_bytes(value)))))
        elif number == 2:
            trainer = dict(_fields(_as_bytes(value)))
        elif number == 3:
            normalizer = dict(_fields(_as_bytes(value)))
    if not pieces:
        raise ValueError("it has no pieces")
    return SentencePieceModel(
        pieces=tuple(pieces),
        algorithm=_as_int(trainer.get(3, 1)),
        space_as_suffix=bool(_as_int(trainer.get(24, 0))),
        charsmap=_as_bytes(normalizer.get(2, b"")),
        adds_dummy_prefix=bool(_as_int(normalizer.get(3, 1))),
        removes_extra_spaces=bool(_as_int(normalizer.get(4, 1))),
        escapes_spaces=bool(_as_int(normalizer.get(5, 1))),
    )


def _piece(fields: dict[int, Value]) -> Piece:
    (score,) = struct.unpack("<f", _as_int(fields.get(2, 0)).to_bytes(4, "little"))
    return Piece(_as_bytes(fields.get(1, b"")).decode("utf-8"), score, PieceKind(_as_int(fields.get(3, 1))))


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Number and value of every field of one message: whole numbers as int, everything with a length as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        part = data[at : at + length]
        if len(part) != length:
            raise ValueError("it ends in the middle of a field")
        at += length
        yield number, part if wire == _BYTES else int.from_bytes(part, "little")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in seven-bit groups, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends in the middle of a number")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError("a number has too many bytes")


def _as_bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a text is a number")
    return value


def _as_int(value: Value) -> int:
    if not isinstance(value, int):
        raise TypeError("a number is a text")
    return value
