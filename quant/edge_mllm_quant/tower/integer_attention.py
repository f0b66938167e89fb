"""Attention of an int8 tower with integer products: scores and weighted values, block after block.

ONNX Runtime's MultiHeadAttention computes in float32, which on processors with 8-bit dot products takes longer than
all matrix products with weights together. Here queries become uint8, keys and values int8 with one scale per call each,
and the exponentials of every row uint8 with the fixed step 1/255: a row's largest exponential is 1 before it is divided
by the sum. How many levels keys and values have is an input with a default (:data:`edge_mllm.machine.ort.LEVELS`): the
runtime gives fewer where sums would overflow. Blocks of scores stay in the cache and are never held for all rows at
once. The idea and its accuracy: Zhang et al., "SageAttention", arXiv:2410.02367, 2024; the products of this file are
ONNX Runtime's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.machine.ort import LEVELS
from edge_mllm_quant.graph.replacement import Replacement, attribute, replace_nodes

if TYPE_CHECKING:
    import onnx

LEAST_TOKENS = 512
"""Below, the float32 operator is as fast."""
BLOCK_BYTES = 4 << 20
"""Of one block of scores in float32."""
BLOCK_HEADS = 4
"""Heads of one block: products of several heads run side by side."""
MOST_BLOCKS = 32
"""Of one attention; with more, a graph of so many operators takes longer to load than it saves."""
_MOST_LEVELS = 127
_MICROSOFT = "com.microsoft"
_TINY = np.float32(1e-20)


def use_integer_attention(model: onnx.ModelProto, *, least_tokens: int = LEAST_TOKENS) -> int:
    """Replace MultiHeadAttention over a known number of tokens, in place.

    Args:
        model: A graph with the shapes of its values, as torch's exporter writes it, before or after its products with
            weights became integers.
        least_tokens: Attention over fewer tokens stays as it is, as does one over thousands, or with a mask or a bias.

    Returns:
        How many operators were replaced.
    """
    shapes = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in _values(model)}

    def writer(node: onnx.NodeProto) -> _Writer | None:
        shape = _shape_of(node, shapes) if node.op_type == "MultiHeadAttention" else None
        if shape is None or shape.tokens < least_tokens or shape.blocks > MOST_BLOCKS:
            return None
        made = _Writer(node, shape)
        made.write()
        return made

    done = replace_nodes(model, writer)
    if done:
        _add_levels(model.graph)
    return done


def _add_levels(graph: onnx.GraphProto) -> None:
    """The input with a default."""
    from onnx import TensorProto, helper, numpy_helper

    graph.input.append(helper.make_tensor_value_info(LEVELS, TensorProto.FLOAT, []))
    graph.initializer.append(numpy_helper.from_array(np.array(_MOST_LEVELS, np.float32), LEVELS))


def _values(model: onnx.ModelProto) -> list[Any]:
    return [*model.graph.value_info, *model.graph.input]


@dataclass(frozen=True)
class _Shape:
    tokens: int
    heads: int
    width: int

    @property
    def groups(self) -> list[int]:
        """Heads of each group."""
        return _cut(self.heads, BLOCK_HEADS)

    @property
    def rows(self) -> list[int]:
        """Rows of each block."""
        return _cut(self.tokens, max(1, BLOCK_BYTES // (4 * self.tokens * min(self.heads, BLOCK_HEADS))))

    @property
    def blocks(self) -> int:
        """Of the whole attention."""
        return len(self.groups) * len(self.rows)


def _shape_of(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> _Shape | None:
    """Sizes of an attention of a known number of tokens to themselves, without mask or bias."""
    sides = shapes.get(node.input[0], [])
    if len(sides) != 3 or not sides[1] or len([name for name in node.input if name]) != 3:
        return None
    if shapes.get(node.input[1], sides)[1] != sides[1]:  # queries that look at other tokens
        return None
    heads = attribute(node, "num_heads")
    return _Shape(sides[1], heads, sides[2] // heads)


def _cut(whole: int, most: int) -> list[int]:
    """Parts of nearly one size, none above ``most``."""
    parts = -(-whole // most)
    return [whole // parts + (number < whole % parts) for number in range(parts)]


class _Writer(Replacement):
    """In place of one MultiHeadAttention."""

    def __init__(self, node: onnx.NodeProto, shape: _Shape) -> None:
        super().__init__(node)
        self._shape = shape

    def write(self) -> None:
        """The whole attention."""
        query, key, value = self._node.input
        codes, step, zero = (self._name(f"query_{part}") for part in ("codes", "step", "zero"))
        self._append("DynamicQuantizeLinear", [query], [codes, step, zero])
        factor = self._constant("factor", np.float32(attribute(self._node, "scale")))
        scaled = self._add("Mul", [step, factor], "query_scaled")
        keys, key_step = self._signed(key, "key")
        values, value_step = self._signed(value, "value")
        queries = self._groups(codes, "queries", [0, 2, 1, 3])
        turned = self._groups(keys, "keys", [0, 2, 3, 1])
        grouped = self._groups(values, "values", [0, 2, 1, 3])
        done = [
            self._group(
                number, queries[number], [turned[number], scaled, key_step, zero], (grouped[number], value_step)
            )
            for number in range(len(queries))
        ]
        whole = self._add("Concat", done, "joined", axis=1) if len(done) > 1 else done[0]
        back = self._add("Transpose", [whole], "back", perm=[0, 2, 1, 3])
        width = self._shape.heads * self._shape.width
        self._append("Reshape", [back, self._ints("rows_shape", 0, 0, width)], [self._node.output[0]])

    def _signed(self, states: str, name: str) -> tuple[str, str]:
        """Int8 codes of states and their step: ONNX Runtime's fast kernels want int8 on the right."""
        sizes = self._add("Abs", [states], f"{name}_sizes")
        most = self._add("ReduceMax", [sizes], f"{name}_most", keepdims=0)
        bounded = self._add("Max", [most, self._constant("tiny", _TINY)], f"{name}_bounded")
        step = self._add("Div", [bounded, LEVELS], f"{name}_step")
        zero = self._constant("signed_zero", np.int8(0))
        return self._add("QuantizeLinear", [states, step, zero], f"{name}_codes"), step

    def _groups(self, codes: str, name: str, perm: list[int]) -> list[str]:
        """Heads apart, [tiles, heads of the group, ...]."""
        shape = self._shape
        apart = self._ints("heads_shape", 0, 0, shape.heads, shape.width)
        heads = self._add("Transpose", [self._add("Reshape", [codes, apart], f"{name}_apart")], name, perm=perm)
        return self._split(heads, name, shape.groups, 1)

    def _group(self, group: int, query: str, key: list[str], value: tuple[str, str]) -> str:
        """One group of heads, float32 [tiles, heads, tokens, width]."""
        turned, scaled, key_step, zero = key
        unsigned, signed = self._constant("unsigned_zero", np.uint8(0)), self._constant("signed_zero", np.int8(0))
        level = self._constant("level", np.float32(1 / 255))
        parts = []
        for number, rows in enumerate(self._split(query, f"rows_{group}", self._shape.rows, 2)):
            name = f"{group}_{number}"
            scores = self._product([rows, turned, scaled, key_step, zero, signed], f"scores_{name}")
            most = self._add("ReduceMax", [scores, self._last], f"most_{name}", keepdims=1)
            below = self._add("Sub", [scores, most], f"below_{name}")
            powers = self._add("Exp", [below], f"powers_{name}")
            total = self._add("ReduceSum", [powers, self._last], f"total_{name}", keepdims=1)
            codes = self._add("QuantizeLinear", [powers, level, unsigned], f"codes_{name}")
            summed = self._product([codes, value[0], level, value[1], unsigned, signed], f"summed_{name}")
            parts.append(self._add("Div", [summed, total], f"out_{name}"))
        return self._add("Concat", parts, f"heads_{group}", axis=2) if len(parts) > 1 else parts[0]

    @property
    def _last(self) -> str:
        return self._ints("last_axis", -1)

    def _product(self, inputs: Sequence[str], name: str) -> str:
        return self._add("MatMulIntegerToFloat", inputs, name, domain=_MICROSOFT)
