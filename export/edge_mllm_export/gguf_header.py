"""The header of a GGUF file: metadata and the list of tensors, without their data.

The layout is that of the GGUF specification, version 3 (ggml/docs/gguf.md). gguf-py's own reader makes numpy views of
every string, which takes half a minute for a vocabulary of 150,000 tokens.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mllm_export.gguf_file import GgufError, gguf_library

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF value type -> struct code."""
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header lists it."""

    shape: tuple[int, ...]
    """Row-major, as numpy would say it."""
    dtype: str
    """GGML's name, for example ``Q4_0``."""
    offset: int
    """First byte in the file."""

    @property
    def weights(self) -> int:
        """Number of values."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        library = gguf_library()
        block, size = library.GGML_QUANT_SIZES[library.GGMLQuantizationType[self.dtype]]
        return int(self.weights // block * size)


@dataclass(frozen=True)
class GgufHeader:
    """What a file says before its data."""

    metadata: dict[str, Any]
    """Key -> value; arrays are lists."""
    types: dict[str, int | tuple[int, int]]
    """Key -> GGUF value type; (9, element type) for arrays."""
    tensors: dict[str, TensorEntry]
    table: int
    """First byte of the list of tensors: where the metadata ends."""

    @property
    def alignment(self) -> int:
        """Bytes; every tensor begins at a multiple of it."""
        return _alignment(self.metadata)


def read_header(path: Path) -> GgufHeader:
    """Read the header of a file.

    Raises:
        GgufError: it is no GGUF file of version 2 or 3, or is truncated.
    """
    with path.open("rb") as file:
        try:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise GgufError(path.name, "it is empty") from error
        with view:
            try:
                return _Cursor(view).header()
            except (struct.error, UnicodeDecodeError, KeyError) as error:
                raise GgufError(path.name, f"its header is damaged ({error})") from error


def _alignment(metadata: dict[str, Any]) -> int:
    return int(metadata.get("general.alignment", 32))


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, view: mmap.mmap) -> None:
        self._view, self._at = view, 0

    def header(self) -> GgufHeader:
        magic, version, tensor_count, key_count = self._take("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise KeyError(f"magic {magic!r}, version {version}")
        metadata, types = {}, {}
        for _ in range(key_count):
            key = self._string()
            kind = self._take("I")[0]
            types[key], metadata[key] = self._value(kind)
        table, entries = self._at, [self._entry() for _ in range(tensor_count)]
        start = -(-self._at // _alignment(metadata)) * _alignment(metadata)
        tensors = {name: TensorEntry(shape, dtype, start + offset) for name, shape, dtype, offset in entries}
        return GgufHeader(metadata, types, tensors, table)

    def _take(self, codes: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + codes, self._view, self._at)
        self._at += struct.calcsize("<" + codes)
        return values

    def _string(self) -> str:
        length = self._take("Q")[0]
        text = self._view[self._at : self._at + length]
        if len(text) != length:
            raise struct.error("a string leaves the file")
        self._at += length
        return text.decode("utf-8")

    def _value(self, kind: int) -> tuple[int | tuple[int, int], Any]:
        if kind == _STRING:
            return kind, self._string()
        if kind != _ARRAY:
            return kind, self._take(_SCALARS[kind])[0]
        element, count = self._take("IQ")
        if element == _STRING:
            return (_ARRAY, element), [self._string() for _ in range(count)]
        return (_ARRAY, element), list(self._take(f"{count}{_SCALARS[element]}"))

    def _entry(self) -> tuple[str, tuple[int, ...], str, int]:
        name = self._string()
        sides = self._take(f"{self._take('I')[0]}Q")
        kind, offset = self._take("IQ")
        return name, tuple(reversed(sides)), gguf_library().GGMLQuantizationType(kind).name, offset
