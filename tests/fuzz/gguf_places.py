"""Where the numbers of a GGUF file's header lie, so that they can be changed one by one."""

from __future__ import annotations

import random
import struct

_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_SHOWN = 40
"""Elements of an array that can be changed."""
_NASTY: dict[str, tuple[float, ...]] = {
    "B": (0, 1, 2, 255), "b": (0, -1, 127), "H": (0, 65535), "h": (0, -1), "q": (0, -1, 1 << 40),
    "I": (0, 1, 2, 3, 5, 7, 31, 33, 255, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1),
    "i": (0, 1, -1, 2, 3, 4, 5, 6, 1 << 20, -(1 << 31)), "d": (0.0, float("nan")),
    "f": (0.0, -1.0, float("nan"), float("inf"), 1e-30, 1e30),
    "Q": (0, 1, 2, 3, 31, 33, 64, 1 << 20, 1 << 31, 1 << 40, 1 << 63),
}  # fmt: skip

Place = tuple[str, int, str]
"""Name, first byte and struct code."""


def places(data: bytes) -> list[Place]:
    """Every number of metadata and of the table of tensors; types and lengths too."""
    found: list[Place] = []
    tensors, pairs = struct.unpack_from("<QQ", data, 8)
    offset = 24
    for _ in range(pairs):
        name, offset = _string(data, offset)
        (kind,) = struct.unpack_from("<I", data, offset)
        found.append((f"{name}:type", offset, "I"))
        offset = _value(data, offset + 4, name, kind, found)
    for _ in range(tensors):
        name, offset = _string(data, offset)
        (axes,) = struct.unpack_from("<I", data, offset)
        found.append((f"{name}:axes", offset, "I"))
        found += [(f"{name}:axis {axis}", offset + 4 + 8 * axis, "Q") for axis in range(axes)]
        offset += 4 + 8 * axes
        found += [(f"{name}:kind", offset, "I"), (f"{name}:offset", offset + 4, "Q")]
        offset += 12
    return found


def _string(data: bytes, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, offset)
    return data[offset + 8 : offset + 8 + length].decode(), offset + 8 + length


def _value(data: bytes, offset: int, name: str, kind: int, found: list[Place]) -> int:
    if kind == 8:
        return _string(data, offset)[1]
    if kind != 9:
        found.append((name, offset, _CODES[kind]))
        return offset + struct.calcsize(_CODES[kind])
    inner, count = struct.unpack_from("<IQ", data, offset)
    found += [(f"{name}:elements", offset, "I"), (f"{name}:length", offset + 4, "Q")]
    offset += 12
    for index in range(count):
        if inner == 8:
            _, offset = _string(data, offset)
            continue
        if index < _SHOWN:
            found.append((f"{name}[{index}]", offset, _CODES[inner]))
        offset += struct.calcsize(_CODES[inner])
    return offset


def set_number(data: bytes, name: str, value: float) -> bytes:
    """The file with one number changed."""
    (place,) = (each for each in places(data) if each[0] == name)
    changed = bytearray(data)
    struct.pack_into("<" + place[2], changed, place[1], value)
    return bytes(changed)


def damaged_gguf(data: bytes, rng: random.Random) -> bytes:
    """One or two numbers of the header changed to such as make trouble."""
    known = places(data)
    few = [place for place in known if not place[0].startswith("tokenizer.")]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        _, offset, code = rng.choice(few if rng.random() < 0.9 else known)
        struct.pack_into("<" + code, changed, offset, rng.choice(_NASTY[code]))
    return bytes(changed)
