"""Other ways to write the attention of an int8 tower, for benchmarks/tower.py: float32 or integer products in blocks.

Each takes the graph with ONNX Runtime's MultiHeadAttention and replaces that operator, head by head. With integers,
probabilities become uint8 with one scale for each row (its largest value), values and keys int8 for each head after
their mean over the tokens is taken away (for values it is added again; softmax does not see that of the keys, see Zhang
et al., SageAttention, arXiv 2410.02367, section 4.2), queries uint8 for each head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_mllm_quant.graph.replacement import Replacement, attribute

_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Blocks:
    """How the attention is written."""

    int8_scores: bool = False
    """Queries times keys in integers."""
    int8_values: bool = False
    """Probabilities times values in integers."""
    most_bytes: int = 4 << 20
    """Of one block of scores in float32."""


@dataclass(frozen=True)
class _Shape:
    tokens: int
    heads: int
    width: int

    def rows(self, most_bytes: int) -> list[int]:
        """Rows of each block."""
        rows = -(-self.tokens // -(-4 * self.tokens**2 // most_bytes))
        return [min(rows, self.tokens - start) for start in range(0, self.tokens, rows)]


def rewrite_attention(model: onnx.ModelProto, blocks: Blocks) -> int:
    """Replace every MultiHeadAttention over a fixed number of tokens, in place; return how many there were."""
    shapes = {value.name: [side.dim_value for side in _sides(value)] for value in model.graph.value_info}
    nodes, done = [], 0
    for node in model.graph.node:
        if node.op_type != "MultiHeadAttention":
            nodes.append(node)
            continue
        _, tokens, width = shapes[node.input[0]]
        heads = int(attribute(node, "num_heads"))
        writer = _Writer(node, _Shape(tokens, heads, width // heads), blocks)
        writer.write()
        nodes.extend(writer.nodes)
        model.graph.initializer.extend(writer.constants)
        done += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return done


def pack_projections(model: onnx.ModelProto) -> int:
    """Join three matrix products of one input, with their biases, into one that is cut again; float32 graph, in place.

    Returns:
        How many groups were joined.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    groups: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            groups.setdefault(node.input[0], []).append(node)
    after = {node.input[0]: node for node in model.graph.node if node.op_type == "Add" and node.input[1] in constants}
    done = 0
    for products in groups.values():
        if len(products) == 3 and all(node.output[0] in after for node in products):
            adds = [after[node.output[0]] for node in products]
            weights = [constants[node.input[1]] for node in products]
            _pack(model.graph, (products, adds), weights, [constants[node.input[1]] for node in adds])
            done += 1
    return done


def _pack(graph: onnx.GraphProto, old: tuple[list[Any], list[Any]], weights: list[Any], biases: list[Any]) -> None:
    products, adds = old
    source = products[0].input[0]
    name = f"{source}/packed"
    constants = {
        "weight": np.concatenate(weights, axis=1),
        "bias": np.concatenate(biases),
        "sizes": np.array([weight.shape[1] for weight in weights]),
    }
    graph.initializer.extend(numpy_helper.from_array(array, f"{name}/{end}") for end, array in constants.items())
    outputs = [node.output[0] for node in adds]
    fresh = [
        helper.make_node("MatMul", [source, name + "/weight"], [name], name=name),
        helper.make_node("Add", [name, name + "/bias"], [name + "/biased"], name=name + "/add"),
        helper.make_node("Split", [name + "/biased", name + "/sizes"], outputs, name=name + "/cut", axis=2),
    ]
    place = list(graph.node).index(products[0])
    for offset, node in enumerate(fresh):
        graph.node.insert(place + offset, node)
    for node in (*products, *adds):
        graph.node.remove(node)


def _sides(value: onnx.ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim


class _Writer(Replacement):
    """In place of one MultiHeadAttention."""

    def __init__(self, node: onnx.NodeProto, shape: _Shape, blocks: Blocks) -> None:
        super().__init__(node)
        self._shape, self._blocks = shape, blocks

    def write(self) -> None:
        """The whole attention."""
        query, key, value = self._node.input
        shape, blocks = self._shape, self._blocks
        heads = [shape.width] * shape.heads
        factor = self._constant("factor", np.float32(attribute(self._node, "scale")))
        if blocks.int8_scores:
            queries = self._split(query, "queries", heads, 2)
            keys, key_steps = self._quantise(self._centre(key, "key")[0], "key")
        else:
            queries = self._split(self._add("Mul", [query, factor], "query"), "queries", heads, 2)
            keys, key_steps = self._split(key, "keys", heads, 2), [""] * shape.heads
        if blocks.int8_values:
            centred, mean = self._centre(value, "value")
            values, value_steps = self._quantise(centred, "value")
        else:
            values, value_steps = self._split(value, "values", heads, 2), [""] * shape.heads
        done = [
            self._head(head, queries[head], (keys[head], key_steps[head]), (values[head], value_steps[head]))
            for head in range(shape.heads)
        ]
        if blocks.int8_values:
            self._append("Add", [self._add("Concat", done, "joined", axis=2), mean], self._node.output)
        else:
            self._append("Concat", done, self._node.output, axis=2)

    def _head(self, head: int, query: str, key: tuple[str, str], value: tuple[str, str]) -> str:
        """One head, float32 [tiles, tokens, width]; keys and values with their steps."""
        turned = self._add("Transpose", [key[0]], f"turned_{head}", perm=[0, 2, 1])
        steps: list[str] = []
        if self._blocks.int8_scores:
            codes, step, zero = (self._name(f"query_{kind}_{head}") for kind in ("codes", "step", "zero"))
            self._append("DynamicQuantizeLinear", [query], [codes, step, zero])
            factor = self._constant("factor", np.float32(attribute(self._node, "scale")))
            query, steps = codes, [self._add("Mul", [step, factor], f"scaled_{head}"), key[1], zero]
        rows = self._shape.rows(self._blocks.most_bytes)
        parts = []
        for number, part in enumerate(self._split(query, f"rows_{head}", rows, 1)):
            label = f"{head}_{number}"
            if self._blocks.int8_scores:
                inputs = [part, turned, *steps]
                scores = self._add("MatMulIntegerToFloat", inputs, f"scores_{label}", domain=_MICROSOFT)
            else:
                scores = self._add("MatMul", [part, turned], f"scores_{label}")
            shares = self._add("Softmax", [scores], f"shares_{label}", axis=-1)
            parts.append(self._weighted(label, shares, value, rows[number]))
        return self._add("Concat", parts, f"head_{head}", axis=1) if len(parts) > 1 else parts[0]

    def _weighted(self, label: str, shares: str, value: tuple[str, str], rows: int) -> str:
        """Probabilities times values."""
        if not self._blocks.int8_values:
            return self._add("MatMul", [shares, value[0]], f"out_{label}")
        tokens = self._shape.tokens
        top = self._add("ReduceMax", [shares, self._ints("last_axis", -1)], f"top_{label}", keepdims=1)
        step = self._add("Div", [top, self._constant("levels", np.float32(255))], f"step_{label}")
        flat = self._add("Reshape", [shares, self._ints("flat", -1, tokens)], f"flat_{label}")
        steps = self._add("Reshape", [step, self._ints("all", -1)], f"steps_{label}")
        codes = self._add("QuantizeLinear", [flat, steps], f"codes_{label}", axis=0)
        block = self._add("Reshape", [codes, self._ints(f"block_{rows}", -1, rows, tokens)], f"block_{label}")
        inputs = [block, value[0], self._constant("one", np.float32(1)), value[1]]
        product = self._add("MatMulIntegerToFloat", inputs, f"product_{label}", domain=_MICROSOFT)
        return self._add("Mul", [product, step], f"out_{label}")

    def _centre(self, states: str, name: str) -> tuple[str, str]:
        """States without their mean over the tokens, and the mean [tiles, 1, heads x width]."""
        tokens = self._shape.tokens
        share = self._constant("share", np.full((1, tokens), 1 / tokens, np.float32))
        mean = self._add("MatMul", [share, states], f"mean_{name}")  # faster than ReduceMean over this axis
        return self._add("Sub", [states, mean], f"centred_{name}"), mean

    def _quantise(self, states: str, name: str) -> tuple[list[str], list[str]]:
        """Int8 codes [tiles, tokens, width] and the step [1] of every head."""
        shape = self._shape
        sizes = self._add("Abs", [states], f"sizes_{name}")
        columns = self._add("ReduceMax", [sizes, self._ints("shared_axes", 0, 1)], f"columns_{name}", keepdims=0)
        grid = self._add("Reshape", [columns, self._ints("grid", shape.heads, shape.width)], f"grid_{name}")
        largest = self._add("ReduceMax", [grid, self._ints("last_axis", -1)], f"largest_{name}", keepdims=1)
        bounded = self._add("Max", [largest, self._constant("smallest", np.float32(1e-20))], f"bounded_{name}")
        step = self._add("Div", [bounded, self._constant("signed_levels", np.float32(127))], f"step_{name}")
        wide = self._add("Expand", [step, self._ints("grid", shape.heads, shape.width)], f"wide_{name}")
        divisor = self._add("Reshape", [wide, self._ints("all", -1)], f"divisor_{name}")
        scaled = self._add("Div", [states, divisor], f"scaled_{name}")
        one = self._constant("one", np.float32(1))  # the kernel with one scale for all is vectorised
        codes = self._add("QuantizeLinear", [scaled, one], f"codes_{name}", output_dtype=TensorProto.INT8)
        line = self._add("Reshape", [step, self._ints("all", -1)], f"line_{name}")
        heads = self._split(codes, f"heads_{name}", [shape.width] * shape.heads, 2)
        return heads, self._split(line, f"steps_{name}", [1] * shape.heads, 0)
