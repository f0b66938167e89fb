"""Block formats of GGUF files whose codes can be chosen again: how scales and codes lie in the bytes.

Layouts are those of llama.cpp's ``ggml-common.h`` (block_q4_0, block_iq4_nl, block_q4_K, block_q6_K); gguf-py's
``gguf.quants`` reads the same bytes and is what the tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm_quant.weights.rounding import CodeArray, Grid

Bytes = npt.NDArray[np.uint8]
_IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""kvalues_iq4nl of ggml-common.h."""


@dataclass(frozen=True)
class BlockFormat:
    """One format; functions take and give whole tensors as bytes [rows, bytes of a row]."""

    block: int
    """Weights of a block."""
    size: int
    """Bytes of a block."""
    grid: Callable[[Bytes], Grid]
    """bytes [blocks, size] -> the grid of [blocks, block] weights."""
    write: Callable[[Bytes, CodeArray], None]
    """Put codes [blocks, block] into bytes [blocks, size], in place."""


def read_grid(kind: str, data: Bytes) -> Grid:
    """The values that the weights of a tensor can take, from its bytes [rows, bytes of a row]."""
    form = FORMATS[kind]
    grid = form.grid(data.reshape(-1, form.size))
    rows = len(data)
    offset = None if grid.offset is None else grid.offset.reshape(rows, -1)
    return Grid(grid.scale.reshape(rows, -1), offset, grid.levels)


def write_codes(kind: str, data: Bytes, codes: CodeArray) -> Bytes:
    """A copy of a tensor's bytes [rows, bytes of a row] with other codes [rows, columns]."""
    form = FORMATS[kind]
    out = data.copy().reshape(-1, form.size)
    form.write(out, codes.reshape(-1, form.block))
    return out.reshape(data.shape)


def _half(data: Bytes) -> FloatArray:
    values: FloatArray = np.ascontiguousarray(data).view(np.float16).astype(np.float32)
    return values


def _spread(scale: FloatArray, each: int) -> FloatArray:
    return np.repeat(scale, each, axis=1)


def _grid_q4_0(blocks: Bytes) -> Grid:
    return Grid(_spread(_half(blocks[:, :2]), 32), None, np.arange(-8, 8, dtype=np.float32))


def _grid_iq4_nl(blocks: Bytes) -> Grid:
    return Grid(_spread(_half(blocks[:, :2]), 32), None, np.array(_IQ4_LEVELS, np.float32))


def _write_nibbles(blocks: Bytes, codes: CodeArray) -> None:
    blocks[:, 2:] = codes[:, :16] | (codes[:, 16:] << 4)


def _grid_q4_k(blocks: Bytes) -> Grid:
    """256 weights: half-precision scale and minimum, eight 6-bit scales and minima, nibbles."""
    d, dmin, packed = _half(blocks[:, :2]), _half(blocks[:, 2:4]), blocks[:, 4:16]
    low, high, mixed = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, (mixed & 15) | ((low >> 6) << 4)], axis=1)
    minima = np.concatenate([high & 63, (mixed >> 4) | ((high >> 6) << 4)], axis=1)
    return Grid(_spread(d * scales, 32), _spread(-dmin * minima, 32), np.arange(16, dtype=np.float32))


def _write_q4_k(blocks: Bytes, codes: CodeArray) -> None:
    pairs = codes.reshape(-1, 4, 2, 32)
    blocks[:, 16:] = (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128)


def _grid_q6_k(blocks: Bytes) -> Grid:
    """256 weights: 128 bytes of low nibbles, 64 of high bit pairs, sixteen 8-bit scales, one half-precision scale."""
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    return Grid(_spread(_half(blocks[:, 208:]) * scales, 16), None, np.arange(-32, 32, dtype=np.float32))


def _write_q6_k(blocks: Bytes, codes: CodeArray) -> None:
    quarters = codes.reshape(-1, 2, 4, 32)
    low, high = quarters & 15, quarters >> 4
    nibbles = np.concatenate([low[:, :, 0] | (low[:, :, 2] << 4), low[:, :, 1] | (low[:, :, 3] << 4)], axis=2)
    blocks[:, :128] = nibbles.reshape(-1, 128)
    pairs = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    blocks[:, 128:192] = pairs.reshape(-1, 64)


FORMATS: dict[str, BlockFormat] = {
    "Q4_0": BlockFormat(32, 18, _grid_q4_0, _write_nibbles),
    "IQ4_NL": BlockFormat(32, 18, _grid_iq4_nl, _write_nibbles),
    "Q4_K": BlockFormat(256, 144, _grid_q4_k, _write_q4_k),
    "Q6_K": BlockFormat(256, 210, _grid_q6_k, _write_q6_k),
}
"""GGML type name -> layout."""
