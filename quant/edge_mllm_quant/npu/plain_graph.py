"""A float graph of fixed shape with the operators that NPU compilers know.

ONNX Runtime's MultiHeadAttention becomes products and a softmax, with the scale of the scores in the weights of the
queries where they have some of their own; sizes that follow from the number of tiles become constants, and a product
and the addition of its bias become one operator.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.errors import SettingError
from edge_mllm_quant.graph.files import PROTOBUF_LIMIT, save_graph, tensor_bytes
from edge_mllm_quant.graph.replacement import Replacement, attribute, replace_nodes

if TYPE_CHECKING:
    import onnx

_ATTENTION = "MultiHeadAttention"


def plain_graph(model: onnx.ModelProto, tiles: int) -> onnx.ModelProto:
    """The graph for ``tiles`` tiles.

    Args:
        model: float32 graph with a free first axis; changed in place, it must not be used afterwards.
        tiles: Of one run.

    Raises:
        SettingError: An attention has a mask: what it hides differs from picture to picture.
    """
    _fix_tiles(model, tiles)
    _fold_scales(model)
    replace_nodes(model, lambda node: _Attention(node) if node.op_type == _ATTENTION else None)
    return _folded(model)


def _fix_tiles(model: onnx.ModelProto, tiles: int) -> None:
    """Give the first axes of inputs and outputs their size; what was inferred from a free one goes."""
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = tiles
    del model.graph.value_info[:]


def _fold_scales(model: onnx.ModelProto) -> None:
    """Multiply the scale of the scores into weights and bias of the queries, in place; it is then 1."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    uses = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        if node.op_type != _ATTENTION:
            continue
        constants = _query_layer(node.input[0], tensors, makers, uses)
        if not constants:
            continue
        scale = next(each for each in node.attribute if each.name == "scale")
        for name in constants:
            values = numpy_helper.to_array(tensors[name]) * np.float32(scale.f)
            tensors[name].CopyFrom(numpy_helper.from_array(values, name))
        scale.f = 1.0


def _query_layer(name: str, tensors: dict[str, Any], makers: dict[str, Any], uses: Counter[str]) -> list[str]:
    """Weight and bias of the linear layer that gives the queries, where nobody else reads them or its output."""
    while (node := makers.get(name)) is not None and uses[name] == 1 and node.op_type == "Reshape":
        name = node.input[0]
    add = makers.get(name)
    if add is None or add.op_type != "Add" or uses[name] != 1:
        return []
    product = next((makers[each] for each in add.input if each in makers), None)
    if product is None or product.op_type != "MatMul" or uses[product.output[0]] != 1:
        return []
    found = [each for each in (product.input[1], *add.input) if each in tensors and uses[each] == 1]
    return found if len(found) == 2 else []


class _Attention(Replacement):
    """Products and a softmax in the place of one MultiHeadAttention."""

    def __init__(self, node: onnx.NodeProto) -> None:
        super().__init__(node)
        if any(node.input[3:]):
            raise SettingError("the tower's attention has a mask, which the fixed graph of an NPU cannot have")
        heads, scale = int(attribute(node, "num_heads")), float(attribute(node, "scale"))
        query, key, value = (self._by_head(name, part, heads) for name, part in zip(node.input, _PARTS, strict=False))
        scores = self._add("MatMul", [query, key], "scores")
        if scale != 1.0:
            scores = self._add("Mul", [scores, self._constant("scale", np.float32(scale))], "scaled")
        shares = self._add("Softmax", [scores], "shares", axis=-1)
        mixed = self._add("MatMul", [shares, value], "mixed")
        turned = self._add("Transpose", [mixed], "by_token", perm=[0, 2, 1, 3])
        self._append("Reshape", [turned, self._ints("joined", 0, 0, -1)], [node.output[0]])

    def _by_head(self, source: str, part: tuple[str, list[int]], heads: int) -> str:
        """[tiles, tokens, width] as [tiles, heads, tokens, head width], or with the last two turned."""
        name, turned = part
        split = self._add("Reshape", [source, self._ints("split", 0, 0, heads, -1)], f"{name}_split")
        return self._add("Transpose", [split], name, perm=turned)


_PARTS = (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """With everything computed that does not depend on pixels, by ONNX Runtime's own passes."""
    import onnx
    import onnxruntime as ort

    with TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "plain.onnx", Path(scratch) / "folded.onnx"
        save_graph(model, source)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(out)
        if tensor_bytes(model) >= PROTOBUF_LIMIT:
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "folded.data")
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        folded = onnx.load_model(out)
    used = {node.domain for node in folded.graph.node} | {""}
    kept = [entry for entry in folded.opset_import if entry.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    return folded
