"""PNG files of every depth, colour type and filter, for decoders: a plain reading of ISO/IEC 15948."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PALETTE = 3


def write_png(
    file: Path, samples: np.ndarray, depth: int, colour: int, *, interlaced: bool = False, filters: int = 0
) -> None:
    """Write samples [height, width, channels] of so many bits; ``filters`` chooses the lines' filters."""
    height, width, channels = samples.shape
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    raw, line_number = b"", filters
    for left, top, across, down in passes:
        part = samples[top::down, left::across]
        before = np.zeros(0, np.uint8)
        for row in part if part.shape[1] else ():
            line = _packed(row.reshape(-1), depth)
            before = before if len(before) else np.zeros_like(line)
            raw += _filtered(line, before, line_number % 5, max(1, depth * channels // 8))
            before, line_number = line, line_number + 1
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))]
    if colour == _PALETTE:
        chunks.append(
            (b"PLTE", bytes((entry * 53 + 17 * channel) % 256 for entry in range(256) for channel in range(3)))
        )
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(data)) + kind + data + _checksum(kind + data) for kind, data in chunks)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _checksum(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def _packed(values: np.ndarray, depth: int) -> np.ndarray:
    if depth == 16:
        return np.frombuffer(values.astype(">u2").tobytes(), np.uint8)
    if depth == 8:
        return values.astype(np.uint8)
    bits = (values[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(-1).astype(np.uint8))


def _filtered(line: np.ndarray, before: np.ndarray, kind: int, step: int) -> bytes:
    out = [kind]
    for place, value in enumerate(line.tolist()):
        left = int(line[place - step]) if place >= step else 0
        corner = int(before[place - step]) if place >= step else 0
        up = int(before[place])
        guess = (0, left, up, (left + up) // 2, _paeth(left, up, corner))[kind]
        out.append((value - guess) % 256)
    return bytes(out)


def _paeth(left: int, up: int, corner: int) -> int:
    whole = left + up - corner
    return min((left, up, corner), key=lambda value: abs(whole - value))
