"""Queries, keys and values of an attention evened out in its weights, so that one 8-bit scale each is enough.

The graph computes the same as before. A constant added to every key changes all scores of a row alike, which softmax
does not see, and one added to every value comes out of the attention unchanged: both are centred, the values' centre
goes on to the next layer's bias. A channel of the queries may be divided by what the same channel of the keys is
multiplied with, and one of the values by what the rows of the next matrix are multiplied with (as in
:mod:`edge_mllm_quant.tower.migration`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm_quant.tower.watching import Feeds, Seen, watch_values

if TYPE_CHECKING:
    import onnx

_ATTENTION = "MultiHeadAttention"
_LEAST, _MOST = 1e-3, 1e3


@dataclass(frozen=True)
class _Linear:
    """Names of the constants of one linear layer."""

    weight: str
    """[in, out]"""
    bias: str


def balance_heads(model: onnx.ModelProto, samples: Sequence[Feeds]) -> int:
    """Even out every attention between linear layers of its own, in place; return how many there were.

    Args:
        model: float32 graph with its tensors in memory.
        samples: Inputs of the graph, at least one.
    """
    graph = _Graph(model)
    found = {node.name: layers for node in graph.attentions if (layers := graph.layers_around(node)) is not None}
    inputs = sorted({name for node in graph.attentions if node.name in found for name in node.input[:3]})
    if not found:
        return 0
    seen = watch_values(model, inputs, samples)
    for node in graph.attentions:
        if node.name in found:
            query, key, value = (seen[name] for name in node.input[:3])
            layers = found[node.name]
            graph.shift(layers[1], -key.middle)
            graph.shift(layers[3], value.middle @ graph.array(layers[3].weight))
            graph.shift(layers[2], -value.middle)
            factor = _clipped(np.sqrt(_spread(key) / np.maximum(query.peaks, 1e-20)))
            graph.scale(layers[0], factor)
            graph.scale(layers[1], np.reciprocal(factor))
            rows = np.abs(graph.array(layers[3].weight)).max(1)
            even = _clipped(np.sqrt(_spread(value) / np.maximum(rows, 1e-20)))
            graph.scale(layers[2], np.reciprocal(even))
            graph.replace(layers[3].weight, graph.array(layers[3].weight) * even[:, None])
    return len(found)


def _spread(seen: Seen) -> FloatArray:
    """Largest absolute value of each channel once it is centred."""
    spread: FloatArray = ((seen.highest - seen.lowest) / 2).astype(np.float32)
    return spread


def _clipped(factor: FloatArray) -> FloatArray:
    """Factors without extremes; dead channels stay."""
    kept: FloatArray = np.where(factor > 0, np.clip(factor, _LEAST, _MOST), 1).astype(np.float32)
    return kept


class _Graph:
    """Constants of a graph and where its tensors come from and go to."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._uses = Counter(name for node in model.graph.node for name in node.input)
        self._uses.update(value.name for value in model.graph.output)
        self.attentions = [node for node in model.graph.node if node.op_type == _ATTENTION]

    def layers_around(self, node: Any) -> tuple[_Linear, _Linear, _Linear, _Linear] | None:
        """Linear layers of queries, keys, values and of the output; None where something else is there."""
        before = [self._before(name) for name in node.input[:3]]
        after = self._after(node.output[0])
        layers = [layer for layer in (*before, after) if layer is not None]
        constants = [name for layer in layers for name in (layer.weight, layer.bias)]
        if len(layers) != 4 or any(self._uses[name] > 1 for name in constants):
            return None
        return layers[0], layers[1], layers[2], layers[3]

    def _before(self, name: str) -> _Linear | None:
        while (node := self._makers.get(name)) is not None and self._uses[name] == 1:
            if node.op_type == "Reshape":
                name = node.input[0]
                continue
            product = self._makers.get(node.input[0]) if node.op_type == "Add" else None
            return self._linear(product, node) if product is not None else None
        return None

    def _after(self, name: str) -> _Linear | None:
        while len(readers := self._readers.get(name, [])) == 1:
            node = readers[0]
            if node.op_type == "Reshape":
                name = node.output[0]
                continue
            following = self._readers.get(node.output[0], []) if node.op_type == "MatMul" else []
            return self._linear(node, following[0]) if len(following) == 1 else None
        return None

    def _linear(self, product: Any, add: Any) -> _Linear | None:
        if product.op_type != "MatMul" or add.op_type != "Add" or self._uses[product.output[0]] != 1:
            return None
        constants = [name for name in (product.input[1], *add.input) if name in self._tensors]
        return _Linear(constants[0], constants[1]) if len(constants) == 2 else None

    def array(self, name: str) -> FloatArray:
        from onnx import numpy_helper

        values: FloatArray = numpy_helper.to_array(self._tensors[name])
        return values

    def shift(self, layer: _Linear, by: FloatArray) -> None:
        """Add to the output of a layer."""
        self.replace(layer.bias, self.array(layer.bias) + by)

    def scale(self, layer: _Linear, by: FloatArray) -> None:
        """Multiply the output of a layer."""
        self.replace(layer.weight, self.array(layer.weight) * by)
        self.replace(layer.bias, self.array(layer.bias) * by)

    def replace(self, name: str, values: npt.NDArray[Any]) -> None:
        from onnx import numpy_helper

        self._tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
