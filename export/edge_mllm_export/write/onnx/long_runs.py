"""Attention of many tokens over a cache in 8 bits, computed in float32.

ONNX Runtime multiplies with an 8-bit cache row by row and unpacks every key and value again for each query: right for
one token, two to three times slower than float32 for a prompt. From :data:`MANY` tokens on the past is unpacked once a
layer instead, and what is new is rounded after it was used. The rounded rows leave the graph as outputs
``appended.N.key`` and ``appended.N.value``, int8 [1, kv_heads, n, head_dim], for the caller to put behind the past;
they are empty where few tokens came, because the operator then writes into the cache itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm_quant.graph.replacement import Replacement

if TYPE_CHECKING:
    import onnx

MANY = 16
"""Tokens from which it pays: 8 took longer with it than without, behind 100 to 3,400 cells (SmolVLM-500M, a Zen 3)."""
APPENDED, PRESENT = "appended.", "present."
QUANTISED = ("k_quant_type", "v_quant_type", "kv_cache_bit_width")
"""Attributes of GroupQueryAttention over a cache in 8 bits."""
SCALES = 12
"""Place of ``k_scale`` among GroupQueryAttention's inputs; ``v_scale`` follows."""
_PAST = 3
_MANY, _CELLS = "long_run/many", "long_run/cells"


def compute_long_runs_in_floats(model: onnx.ModelProto) -> None:
    """Give every attention over a cache in 8 bits a second way for many tokens, in place."""
    from onnx import TensorProto, helper

    graph = model.graph
    shapes = {tensor.name: tensor.dims for tensor in graph.initializer}
    nodes = _count_tokens(graph)
    for node in graph.node:
        if node.op_type != "GroupQueryAttention":
            nodes.append(node)
            continue
        _, heads, _, width = shapes[node.input[SCALES]]
        way = _TwoWays(node)
        nodes.append(way.choice(heads, width))
        graph.initializer.extend(way.constants)
        for name in way.appended:
            shape = [1, heads, "appended_length", width]
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT8, shape))
    del graph.node[:]
    graph.node.extend(nodes)


def _count_tokens(graph: onnx.GraphProto) -> list[Any]:
    """Nodes that say whether many tokens come, and how many cells are before them."""
    from onnx import helper, numpy_helper

    least = numpy_helper.from_array(np.array([MANY], np.int64), "long_run/least")
    graph.initializer.append(least)
    return [
        helper.make_node("Shape", ["inputs_embeds"], ["long_run/tokens"], start=1, end=2),
        helper.make_node("Shape", ["attention_mask"], ["long_run/all"], start=1, end=2),
        helper.make_node("Sub", ["long_run/all", "long_run/tokens"], [_CELLS]),
        helper.make_node("GreaterOrEqual", ["long_run/tokens", least.name], [_MANY]),
    ]


class _TwoWays(Replacement):
    """An If in the place of one GroupQueryAttention over a cache in 8 bits."""

    def __init__(self, node: onnx.NodeProto) -> None:
        super().__init__(node)
        self.appended = [APPENDED + name.removeprefix(PRESENT) for name in node.output[1:3]]
        """Names of the further outputs."""

    def choice(self, heads: int, width: int) -> onnx.NodeProto:
        """The node; constants are in ``constants`` then."""
        from onnx import helper

        self._constant("none", np.zeros((1, heads, 0, width), np.int8))
        then_branch, else_branch = self._in_floats(), self._as_it_is()
        outputs = [*self._node.output, *self.appended]
        return helper.make_node(
            "If", [_MANY], outputs, name=f"{self._node.name}/If", then_branch=then_branch, else_branch=else_branch
        )

    def _in_floats(self) -> onnx.GraphProto:
        """Past unpacked, attention in float32, new rows rounded; the cache itself stays as it is."""
        node = self._copy("floats")
        for place, kind in enumerate("kv"):
            first, axis = self._ints("first", 0), self._ints("axis", 2)
            past = self._add("Slice", [self._node.input[_PAST + place], first, _CELLS, axis], f"{kind}_codes")
            raw = self._add("Cast", [past], f"{kind}_raw", to=1)
            node.input[_PAST + place] = self._add("Mul", [raw, self._node.input[SCALES + place]], f"{kind}_past")
        del node.input[SCALES:]
        kept = [each for each in node.attribute if each.name not in QUANTISED]
        del node.attribute[:]
        node.attribute.extend(kept)
        self.nodes.append(node)
        rounded = [self._rounded(node.output[1 + place], place) for place in range(2)]
        same = [self._add("Identity", [self._node.input[_PAST + place]], f"same_{place}") for place in range(2)]
        return self._branch("floats", [node.output[0], *same, *rounded])

    def _rounded(self, values: str, place: int) -> str:
        """Codes of the rows behind the past."""
        kind = "kv"[place]
        end, axis = self._ints("end", np.iinfo(np.int64).max), self._ints("axis", 2)
        new = self._add("Slice", [values, _CELLS, end, axis], f"{kind}_new")
        scaled = self._add("Div", [new, self._node.input[SCALES + place]], f"{kind}_scaled")
        whole = self._add("Round", [scaled], f"{kind}_whole")
        low, high = self._constant("low", np.float32(-128)), self._constant("high", np.float32(127))
        return self._add("Cast", [self._add("Clip", [whole, low, high], f"{kind}_clipped")], f"{kind}_appended", to=3)

    def _as_it_is(self) -> onnx.GraphProto:
        """The operator over the cache, and nothing further to append."""
        node = self._copy("codes")
        self.nodes.append(node)
        nothing = [self._add("Identity", [self._name("none")], f"nothing_{place}") for place in range(2)]
        return self._branch("codes", [*node.output, *nothing])

    def _copy(self, name: str) -> Any:
        node = type(self._node)()
        node.CopyFrom(self._node)
        node.name = f"{self._node.name}/{name}"
        for place, output in enumerate(("attended", "key", "value")):
            node.output[place] = self._name(f"{name}_{output}")
        return node

    def _branch(self, name: str, outputs: list[str]) -> onnx.GraphProto:
        """Take the nodes that were made so far as one branch."""
        from onnx import TensorProto, helper

        types = [TensorProto.FLOAT, *[TensorProto.INT8] * 4]
        values = [helper.make_tensor_value_info(*each, None) for each in zip(outputs, types, strict=True)]
        nodes, self.nodes = self.nodes, []
        return helper.make_graph(nodes, self._name(name), [], values)
