"""All metadata of a GGUF file, arrays included, with their types.

The layout is that of the GGUF specification, version 3 (ggml/docs/gguf.md). gguf-py's own reader makes numpy views of
every string, which takes half a minute for a vocabulary of 150,000 tokens; the runtime's passes over arrays.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF value type -> struct code."""
_STRING, _ARRAY = 8, 9


def read_metadata(path: Path) -> dict[str, Any]:
    """Key -> value; arrays are lists."""
    return {key: value for key, (_, value) in read_typed(path).items()}


def read_typed(path: Path) -> dict[str, tuple[int | tuple[int, int], Any]]:
    """Key -> (GGUF value type, (9, element type) for arrays, and value)."""
    cursor = _Cursor(path.read_bytes())
    magic, _version, _tensors, keys = cursor.take("4sIQQ")
    assert magic == b"GGUF"
    return {cursor.string(): cursor.value(cursor.take("I")[0]) for _ in range(keys)}


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, codes: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + codes, self._data, self._at)
        self._at += struct.calcsize("<" + codes)
        return values

    def string(self) -> str:
        length = self.take("Q")[0]
        text = self._data[self._at : self._at + length]
        self._at += length
        return text.decode("utf-8")

    def value(self, kind: int) -> tuple[int | tuple[int, int], Any]:
        if kind == _STRING:
            return kind, self.string()
        if kind != _ARRAY:
            return kind, self.take(_SCALARS[kind])[0]
        element, count = self.take("IQ")
        if element == _STRING:
            return (_ARRAY, element), [self.string() for _ in range(count)]
        return (_ARRAY, element), list(self.take(f"{count}{_SCALARS[element]}"))
