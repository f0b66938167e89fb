"""Rotary positions of three axes by the operators that every ONNX Runtime has.

The builder writes one ``MRotaryEmbedding`` for the queries and one for the keys of every layer, an operator that came
with ONNX Runtime 1.27; the library for phones is 1.26. Which row of the angles belongs to which token is the same in
all layers, so the rows are gathered once, and each layer turns its values by the plain ``RotaryEmbedding``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

_OPERATOR, _PLAIN, _DOMAIN = "MRotaryEmbedding", "RotaryEmbedding", "com.microsoft"
_OWN = ("mrope_section", "mrope_layout")
"""Attributes that the plain operator does not have."""


def use_plain_rotary(model: onnx.ModelProto) -> None:
    """Replace ``MRotaryEmbedding``, in place."""
    from onnx import helper

    graph = model.graph
    rows: dict[tuple[str, ...], tuple[str, str, str]] = {}
    made: list[Any] = []
    for node in graph.node:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type != _OPERATOR:
            continue
        layout, sections = attributes.get("mrope_layout", 0), tuple(attributes["mrope_section"])
        key = (*node.input[1:], str(layout), *map(str, sections))
        if key not in rows:
            axes = _LAYOUTS[layout](sections)
            rows[key] = _rows(graph, made, list(node.input[1:]), axes, f"/rotary_{len(rows)}")
        node.op_type = _PLAIN
        kept = [each for each in node.attribute if each.name not in _OWN]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.input[1], node.input[2], node.input[3] = rows[key]
    for place, node in enumerate(made):
        graph.node.insert(place, node)


def _in_turn(sections: tuple[int, ...]) -> list[int]:
    """The axis of each angle, sections one after the other."""
    return [axis for axis, count in enumerate(sections) for _ in range(count)]


def _interleaved(sections: tuple[int, ...]) -> list[int]:
    """The axis of each angle where they take turns, as long as those of rows and columns last."""
    return [place % 3 if place % 3 and place < 3 * sections[place % 3] else 0 for place in range(sum(sections))]


_LAYOUTS = {0: _in_turn, 1: _interleaved}
"""Values of ``mrope_layout``."""


def _rows(
    graph: onnx.GraphProto, made: list[Any], inputs: list[str], axes: list[int], prefix: str
) -> tuple[str, str, str]:
    """Numbers of the tokens [batch, n], and cosines and sines [tokens, half a head] in their order.

    Args:
        graph: Takes constants.
        made: Takes nodes.
        inputs: Positions [3, batch, n], all cosines and all sines.
        axes: The axis of each angle.
        prefix: Of names.
    """
    from onnx import helper, numpy_helper

    def constant(name: str, values: Any, kind: Any = np.int64) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values, kind), f"{prefix}/{name}"))
        return f"{prefix}/{name}"

    def node(operator: str, taken: list[str], name: str, **attributes: Any) -> str:
        output = f"{prefix}/{name}/output_0"
        made.append(helper.make_node(operator, taken, [output], name=f"{prefix}/{name}", **attributes))
        return output

    positions, *tables = inputs
    flat, zero, one = constant("flat", [-1]), constant("zero", 0), constant("one", 1)
    numbers = [
        node("Gather", [positions, constant(f"axis_{axis}", axis)], f"of_axis_{axis}", axis=0) for axis in range(3)
    ]
    lines = [node("Reshape", [each, flat], f"line_{axis}") for axis, each in enumerate(numbers)]
    masks = [constant(f"angles_{axis}", [each == axis for each in axes], np.bool_) for axis in range(3)]
    joined = []
    for kind, table in zip(("cos", "sin"), tables, strict=True):
        # Rows first: a slice of a table's columns would be a second table in memory.
        rows = [node("Gather", [table, line], f"{kind}_rows_{axis}", axis=0) for axis, line in enumerate(lines)]
        both = node("Where", [masks[1], rows[1], rows[0]], f"{kind}_of_two")
        joined.append(node("Where", [masks[2], rows[2], both], kind))
    count = node("Size", [lines[0]], "count")
    tokens = node("Range", [zero, count, one], "numbers")
    shape = node("Shape", [numbers[0]], "shape")
    return node("Reshape", [tokens, shape], "tokens"), joined[0], joined[1]
