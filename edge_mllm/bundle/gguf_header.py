"""What a GGUF file says of itself before its data: metadata, and names and sizes of its tensors.

Source of the layout: ggml's ``docs/gguf.md``, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from edge_mllm.bundle.pointers import is_pointer
from edge_mllm.errors import BundleError, PartPointerError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value -> its struct code."""
_BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 6: (32, 22), 8: (32, 34), 12: (256, 144), 14: (256, 210), 30: (1, 2)}
"""Common tensor types -> values and bytes of a block: F32, F16, Q4_0, Q5_0, Q8_0, Q4_K, Q6_K, BF16."""
_NAMES = (
    *("F32", "F16", "Q4_0", "Q4_1", "", "", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32"),
    *("I64", "F64", "IQ1_M", "BF16"),
)
"""Tensor types, each at its number (ggml_type in ggml.h)."""
_STRING, _ARRAY, _ALIGNMENT = 8, 9, 32
_SHOWN = 0.0005
"""Smallest share of the weights that is worth a word."""
_MOST = 1 << 24
"""More entries, or longer strings, are no sane file."""
_KEPT = 16
"""Numbers of the longest array that is kept."""


@dataclass(frozen=True)
class GGUFTensor:
    """One entry of the table."""

    name: str
    shape: tuple[int, ...]
    """Fastest axis first, as the file has it."""
    bytes: int
    """Up to the next tensor, alignment included."""
    kind: int
    """Value of ggml's enum ggml_type."""
    offset: int
    """Where its data begin in the file."""

    @property
    def type(self) -> str:
        """Ggml's name of the type its values have, or its number."""
        return _NAMES[self.kind] if self.kind < len(_NAMES) else f"type {self.kind}"


@dataclass(frozen=True)
class GGUFHeader:
    """Everything before the data."""

    metadata: dict[str, Any]
    """Key -> number, truth value or text."""
    lengths: dict[str, int]
    """Key -> length, for values that are arrays."""
    tensors: list[GGUFTensor]
    table: int
    """First byte of the list of tensors: where the metadata end."""
    alignment: int
    """Bytes; every tensor begins at a multiple of it."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Key -> value of ggml's enum gguf_type, for values that are no arrays."""
    elements: dict[str, int] = field(default_factory=dict)
    """The same of the elements of arrays."""
    arrays: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Key -> numbers, for short arrays of numbers."""


def read_tensors(path: Path) -> list[GGUFTensor]:
    """Read the table of tensors; errors as :func:`read_gguf`."""
    return read_gguf(path).tensors


def read_gguf(path: Path) -> GGUFHeader:
    """Read the header.

    Raises:
        BundleError: it is no GGUF file of a known version, or it is damaged or cut off.
    """
    try:
        if is_pointer(path):
            raise PartPointerError(path, path.name)
        with path.open("rb") as stream:
            return _read(stream, path.stat().st_size)
    except PartPointerError:
        raise
    except (struct.error, ValueError, KeyError, OSError, RecursionError, ArithmeticError) as error:
        raise BundleError(path, f"it is not a GGUF file that can be read ({error})") from error


def stored_as(tensors: Sequence[GGUFTensor]) -> str:
    """True bits per weight, and the types with their shares of all weights, the largest first."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        weights[tensor.type] += math.prod(tensor.shape)
    bits = 8 * sum(tensor.bytes for tensor in tensors) / max(weights.total(), 1)
    shares = [(kind, count / weights.total()) for kind, count in weights.most_common() if count]
    shown = ", ".join(f"{kind} {share:.1%}" for kind, share in shares if share >= _SHOWN)
    return f"{bits:.2f} bits per weight: {shown}"


def decode_bytes(path: Path) -> int:
    """Bytes of weights that are read for every generated token.

    All but the token embedding, of which one row is read, unless it is the output head as well.
    """
    tensors = read_tensors(path)
    untied = any(tensor.name == "output.weight" for tensor in tensors)
    return sum(tensor.bytes for tensor in tensors if not (untied and tensor.name == "token_embd.weight"))


def _read(stream: BinaryIO, size: int) -> GGUFHeader:
    magic, version, tensors, pairs = struct.unpack("<4sIQQ", stream.read(24))
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"magic {magic!r}, version {version}")
    if tensors > _MOST or pairs > _MOST:
        raise ValueError("its table is too long")
    metadata: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    kinds: dict[str, int] = {}
    elements: dict[str, int] = {}
    arrays: dict[str, tuple[Any, ...]] = {}
    for _ in range(pairs):
        key, kind = _string(stream), _number(stream, "<I")
        if kind == _ARRAY:
            elements[key], lengths[key], arrays[key] = _array(stream)
        else:
            metadata[key], kinds[key] = _value(stream, kind), kind
    place, table = stream.tell(), []
    for _ in range(tensors):
        name = _string(stream)
        shape = tuple(_number(stream, "<Q") for _ in range(_number(stream, "<I")))
        kind, offset = _number(stream, "<I"), _number(stream, "<Q")
        table.append((offset, name, shape, kind))
    alignment = int(metadata.get("general.alignment", _ALIGNMENT))
    start = -(-stream.tell() // alignment) * alignment
    return GGUFHeader(metadata, lengths, _sized(table, start, size), place, alignment, kinds, elements, arrays)


def _sized(table: list[tuple[int, str, tuple[int, ...], int]], start: int, size: int) -> list[GGUFTensor]:
    """Tensors in the table's order, each up to the next one; data begin at ``start`` in a file of ``size`` bytes."""
    offsets = sorted(offset for offset, *_ in table)
    ends = dict(zip(offsets, [*offsets[1:], size - start], strict=False))
    found = [
        GGUFTensor(name, shape, ends[offset] - offset, kind, start + offset) for offset, name, shape, kind in table
    ]
    for tensor in found:
        values, width = _BLOCKS.get(tensor.kind, (256, 1))
        if tensor.bytes < math.prod(tensor.shape) // values * width:
            raise ValueError(f"it ends within the tensor {tensor.name}")
    return found


def _number(stream: BinaryIO, layout: str) -> int:
    return int(_unpacked(stream, layout))


def _string(stream: BinaryIO) -> str:
    length = _number(stream, "<Q")
    if length > _MOST:
        raise ValueError("a string is too long")
    return stream.read(length).decode("utf-8")


def _value(stream: BinaryIO, kind: int) -> Any:
    return _string(stream) if kind == _STRING else _unpacked(stream, "<" + _SCALARS[kind])


def _unpacked(stream: BinaryIO, layout: str) -> Any:
    (value,) = struct.unpack(layout, stream.read(struct.calcsize(layout)))
    return value


def _array(stream: BinaryIO) -> tuple[int, int, tuple[Any, ...]]:
    """Go past an array and return its elements' type, its length, and its numbers where it is short."""
    inner, count = _number(stream, "<I"), _number(stream, "<Q")
    if count > _MOST:
        raise ValueError("an array is too long")
    if inner in _SCALARS and count <= _KEPT:
        return inner, count, tuple(_value(stream, inner) for _ in range(count))
    if inner in _SCALARS:
        stream.seek(struct.calcsize("<" + _SCALARS[inner]) * count, 1)
    else:
        for _ in range(count):
            if inner == _ARRAY:
                _array(stream)
            else:
                _value(stream, inner)
    return inner, count, ()
