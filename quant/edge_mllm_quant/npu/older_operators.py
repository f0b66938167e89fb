"""A plain float graph with the operators of ONNX 1.14 (opset 19), which Rockchip's compiler stops at.

GELU, an operator from opset 20 on, becomes what its definition says. What other operators gained since then are types
of tensors; ONNX's checker holds the graph against opset 19 before it is handed out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm_quant.graph.files import PROTOBUF_LIMIT, tensor_bytes
from edge_mllm_quant.graph.replacement import Replacement, replace_nodes

if TYPE_CHECKING:
    import onnx

OPSET, _IR = 19, 9


def with_older_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph at opset 19.

    Args:
        model: From :func:`edge_mllm_quant.npu.plain_graph.plain_graph`; changed in place.

    Raises:
        onnx.checker.ValidationError: An operator is newer and is not known here.
    """
    import onnx

    replace_nodes(model, lambda node: _Gelu(node) if node.op_type == "Gelu" else None)
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.ir_version = _IR
    if tensor_bytes(model) < PROTOBUF_LIMIT:
        onnx.checker.check_model(model)
    return model


class _Gelu(Replacement):
    """x / 2 * (1 + erf(x / sqrt 2)), or its approximation x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""

    def __init__(self, node: onnx.NodeProto) -> None:
        super().__init__(node)
        x = node.input[0]
        approximate = any(each.name == "approximate" and each.s == b"tanh" for each in node.attribute)
        part = self._tanh(x) if approximate else self._erf(x)
        share = self._add("Add", [part, self._float("one", 1.0)], "share")
        half = self._add("Mul", [x, self._float("half", 0.5)], "halved")
        self._append("Mul", [half, share], [node.output[0]])

    def _erf(self, x: str) -> str:
        scaled = self._add("Mul", [x, self._float("root", 1 / math.sqrt(2))], "scaled")
        return self._add("Erf", [scaled], "erf")

    def _tanh(self, x: str) -> str:
        square = self._add("Mul", [x, x], "square")
        bent = self._add("Mul", [square, self._float("bend", 0.044715)], "bent")
        factor = self._add("Add", [bent, self._float("one", 1.0)], "factor")
        inner = self._add("Mul", [x, factor], "inner")
        scaled = self._add("Mul", [inner, self._float("root", math.sqrt(2 / math.pi))], "scaled")
        return self._add("Tanh", [scaled], "tanh")

    def _float(self, name: str, value: float) -> str:
        return self._constant(name, np.float32(value))
