"""Operators written in the place of one node of an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """The value of an attribute that the node has."""
    from onnx import helper

    return next(helper.get_attribute_value(each) for each in node.attribute if each.name == name)


def replace_nodes(model: onnx.ModelProto, make: Callable[[onnx.NodeProto], Replacement | None]) -> int:
    """Put replacements in the place of nodes, in place; return how many.

    Args:
        model: Changed.
        make: Gives a node's replacement; None where the node stays.
    """
    nodes: list[Any] = []
    done = 0
    for node in model.graph.node:
        replacement = make(node)
        if replacement is None:
            nodes.append(node)
            continue
        nodes += replacement.nodes
        model.graph.initializer.extend(replacement.constants)
        done += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return done


class Replacement:
    """Nodes and constants that stand for ``node``; every name starts with its first output's."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._node = node
        self._named: set[str] = set()

    def _split(self, source: str, name: str, sizes: list[int], axis: int) -> list[str]:
        """Parts of a tensor along an axis; the tensor itself where there is one part."""
        if len(sizes) == 1:
            return [source]
        outputs = [self._name(f"{name}_{index}") for index in range(len(sizes))]
        lengths = self._ints("lengths_" + "_".join(map(str, sizes)), *sizes)
        self._append("Split", [source, lengths], outputs, axis=axis)
        return outputs

    def _add(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self._append(kind, inputs, [self._name(name)], **attributes)
        return self._name(name)

    def _append(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, outputs, name=f"{outputs[0]}_{kind}", **attributes))

    def _ints(self, name: str, *values: int) -> str:
        return self._constant(name, np.array(values, np.int64))

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self._named:
            self._named.add(name)
            self.constants.append(numpy_helper.from_array(np.asarray(value), self._name(name)))
        return self._name(name)

    def _name(self, name: str) -> str:
        return f"{self._node.output[0]}/{name}"
