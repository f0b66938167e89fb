"""Products with constant matrices in 8-bit integers, with a step for every row of the input and every output channel.

A row (a token) is divided by its own largest value, so its result depends neither on the rows that are computed with it
nor, as with one step for all of them, on the row that goes furthest (the per-token activations and per-channel weights
of Dettmers et al., "LLM.int8()", 2022, arXiv:2208.07339, section 2.1, in signed steps around 128). Inputs are unsigned
and weights signed because ONNX Runtime has its fast kernels for that pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_mllm_quant.graph.replacement import Replacement

if TYPE_CHECKING:
    import onnx

    from edge_mllm.arrays import FloatArray

LEVELS = 127
_MIDDLE = 128
_LEAST = 1e-30
"""Smallest peak of a row: a row of zeros stays one."""


@dataclass(frozen=True)
class IntegerMatrix:
    """Weights in integers."""

    codes: npt.NDArray[np.int8]
    """[columns, rows]: transposed, as MatMul takes them."""
    steps: FloatArray
    """float32 [rows]"""

    def values(self) -> FloatArray:
        """The weights that they stand for, float32 [rows, columns]."""
        values: FloatArray = self.codes.T * self.steps[:, None]
        return values


def integer_matrix(weights: FloatArray) -> IntegerMatrix:
    """Round weights float32 [rows, columns] to the nearest of 255 values for each row (output channel)."""
    steps = np.maximum(np.abs(weights).max(axis=1) / np.float32(LEVELS), np.float32(_LEAST))
    codes = np.rint(weights.T / steps).astype(np.int8)
    return IntegerMatrix(np.ascontiguousarray(codes), steps.astype(np.float32))


class TokenProducts(Replacement):
    """What stands for products of one tensor [1, n, columns]: it is rounded once, then multiplied.

    Args:
        node: The first of the products; names of new values start with its output's.
    """

    def __init__(self, node: onnx.NodeProto) -> None:
        super().__init__(node)
        source, axis = node.input[0], self._ints("axis", -1)
        highest = self._add("ReduceMax", [source, axis], "highest")
        depth = self._add("Neg", [self._add("ReduceMin", [source, axis], "lowest")], "depth")
        peak = self._add("Max", [highest, depth, self._constant("least", np.float32(_LEAST))], "peak")
        self._step = self._add("Mul", [peak, self._constant("level", np.float32(1 / LEVELS))], "step")
        scaled = self._add("Mul", [source, self._add("Reciprocal", [self._step], "inverse")], "scaled")
        self._one, self._middle = self._constant("one", np.float32(1)), self._constant("middle", np.uint8(_MIDDLE))
        self._codes = self._add("QuantizeLinear", [scaled, self._one, self._middle], "codes")

    def multiply(self, node: onnx.NodeProto, codes: str, steps: str) -> list[onnx.NodeProto]:
        """The nodes of one of the products; those that round the input come with the first.

        Args:
            node: Its output keeps its name.
            codes: Name of the matrix int8 [columns, rows].
            steps: Name of its steps float32 [rows].
        """
        raw = f"{node.output[0]}/integer"
        # An optional input, zero. Without it ONNX Runtime up to 1.29 writes behind its list of inputs where it makes
        # weights unsigned (on x86 without VNNI), and two products with one zero end in an error there.
        zero = self._constant(f"{codes}/zero", np.int8(0))
        inputs = [self._codes, codes, self._one, steps, self._middle, zero]
        self._append("MatMulIntegerToFloat", inputs, [raw], domain="com.microsoft")
        self._append("Mul", [raw, self._step], [node.output[0]])
        made, self.nodes = self.nodes, []
        return made
