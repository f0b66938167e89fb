"""4-bit matrices of an ONNX graph (com.microsoft MatMulNBits), quantised again with what their inputs look like.

Packing is that of ONNX Runtime's contrib operator documentation: codes [rows, blocks, bytes], the first of two weights
in the low nibble, zero point 8, one scale for each row and block. Number, place and type of the tensors stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm_quant.weights.rounding import Grid, refine_codes

if TYPE_CHECKING:
    import onnx
    import torch

    from edge_mllm_quant.weights.activations import Moments

LEVELS = np.arange(-8, 8, dtype=np.float32)
_ZERO_POINT = 8
_TRIALS = np.linspace(0.75, 1.25, 26, dtype=np.float32)
"""Scales that are tried, as shares of the one that just reaches the largest weight of a block."""
_AT_ONCE = 1 << 18
"""Weights whose scales are tried together: few enough to stay in the processor's cache."""


@dataclass(frozen=True)
class NBitsNode:
    """One symmetric MatMulNBits node with its tensors."""

    name: str
    bits: int
    shape: tuple[int, int]
    """Rows (outputs) and columns (inputs)."""
    block: int
    codes: onnx.TensorProto
    scales: onnx.TensorProto

    def values(self) -> FloatArray:
        """The weights as they are stored, float32 [rows, columns]."""
        from onnx import numpy_helper

        packed = numpy_helper.to_array(self.codes).reshape(self.shape[0], -1)
        scale = numpy_helper.to_array(self.scales).astype(np.float32).reshape(self.shape[0], -1)
        if self.bits == 4:
            packed = np.stack([packed & 15, packed >> 4], axis=-1).reshape(self.shape[0], -1)
        codes = packed.astype(np.float32) - np.float32(1 << (self.bits - 1))
        values: FloatArray = (np.repeat(scale, self.block, axis=1) * codes)[:, : self.shape[1]]
        return values


def symmetric_nodes(model: onnx.ModelProto, *, bits: tuple[int, ...] = (4,)) -> Iterator[NBitsNode]:
    """The MatMulNBits nodes of so many bits, without zero points, whose scales are constants (cast or not)."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in tensors:
            tensors[node.output[0]] = tensors[node.input[0]]
    for node in model.graph.node:
        settings = {item.name: item.i for item in node.attribute}
        if node.op_type != "MatMulNBits" or settings["bits"] not in bits or any(node.input[3:]):
            continue
        if node.input[1] in tensors and node.input[2] in tensors:
            shape, codes, scales = (settings["N"], settings["K"]), tensors[node.input[1]], tensors[node.input[2]]
            yield NBitsNode(node.name, settings["bits"], shape, settings["block_size"], codes, scales)


def relative_error(node: NBitsNode, weights: FloatArray) -> float:
    """Norm of (stored - ``weights``) over the norm of ``weights``."""
    return float(np.linalg.norm(node.values() - weights) / max(float(np.linalg.norm(weights)), 1e-30))


def refine_matmul(node: NBitsNode, weights: FloatArray, moments: Moments) -> None:
    """Write scales and codes for ``weights`` float32 [rows, columns] that suit the layer's input, in place.

    Scales are rounded to half precision, so that storing them so later costs nothing.
    """
    from onnx import numpy_helper

    if moments.products is None:
        raise ValueError("the whole matrix of second moments is needed")
    columns = node.shape[1]
    scale = search_scales(weights, moments.squares, node.block).astype(np.float16).astype(np.float32)
    steps = np.repeat(scale, node.block, axis=1)
    codes = refine_codes(weights, Grid(steps[:, :columns], None, LEVELS), moments.products)
    codes = np.pad(codes, ((0, 0), (0, steps.shape[1] - columns)), constant_values=_ZERO_POINT)
    packed = codes[:, 0::2] | (codes[:, 1::2] << 4)
    node.codes.CopyFrom(numpy_helper.from_array(packed.reshape(tuple(node.codes.dims)), node.codes.name))
    old = numpy_helper.to_array(node.scales)
    node.scales.CopyFrom(numpy_helper.from_array(scale.reshape(old.shape).astype(old.dtype), node.scales.name))


def search_scales(weights: FloatArray, squares: FloatArray, block: int) -> FloatArray:
    """The scale of each block with the least rounding error, columns weighted by the mean square of their input.

    Args:
        weights: float32 [rows, columns].
        squares: float32 [columns].
        block: Weights that share a scale; the last block of a row may have fewer.

    Returns:
        float32 [rows, blocks]; negative where the largest weight is positive, so that it gets the code -8.
    """
    import torch

    missing = -weights.shape[1] % block
    importance = np.pad(np.maximum(squares, squares.mean() * 1e-4), (0, missing)).reshape(1, -1, block)
    blocks = np.pad(weights, ((0, 0), (0, missing))).reshape(len(weights), -1, block)
    parts = torch.from_numpy(np.ascontiguousarray(blocks)).split(max(1, _AT_ONCE // weights.shape[1]))
    best = [_best_scales(part, torch.from_numpy(importance)) for part in parts]
    found: FloatArray = torch.cat(best).numpy()
    return found


def _best_scales(blocks: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    """For blocks [rows, blocks of a row, block]; a block of zeros gets zero."""
    import torch

    at = blocks.abs().argmax(-1, keepdim=True)
    full = blocks.gather(-1, at)[..., 0] / -8
    best, least = full, torch.full_like(full, torch.inf)
    for trial in _TRIALS.tolist():
        scale = full * trial
        wide = scale[..., None]
        rounded = (blocks / wide).round_().clamp_(-8, 7).mul_(wide)
        error = rounded.sub_(blocks).square_().mul_(importance).sum(-1)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best
