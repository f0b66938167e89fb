"""Integer matrix products with fixed scales, written as QuantizeLinear and DequantizeLinear around float products.

What the products are fed is measured once, on sample inputs, so nothing has to look for the largest value when the
graph runs. OpenVINO and compilers for NPUs turn this form into integer kernels; ONNX Runtime runs it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm_quant.tower.watching import Seen, shared_inputs

if TYPE_CHECKING:
    import onnx

_LEVELS, _SIGNED_LEVELS = 255, 127


def quantise_static(model: onnx.ModelProto, seen: Mapping[str, Seen], *, keep: Sequence[str] = ()) -> int:
    """Give products with constant matrices 8-bit inputs and weights, in place; return how many.

    Activations are uint8 with one scale and zero point for a tensor, weights int8 with one scale for each output
    channel. The cost of a wrong range is clipping, so samples should hold what the graph will see.

    Args:
        model: float32 graph with its tensors in memory.
        seen: Input of a product -> what it held (:mod:`edge_mllm_quant.tower.watching`); others stay as they are.
        keep: Names of products that stay float32.
    """
    writer = _Writer(model)
    for name, products in shared_inputs(model).items():
        chosen = [node for node in products if node.name not in keep]
        if name in seen and chosen:
            writer.activation(name, seen[name], chosen)
            for node in chosen:
                writer.weight(node)
            writer.done += len(chosen)
    writer.finish()
    return writer.done


def activation_scale(seen: Seen) -> tuple[np.float32, np.uint8]:
    """Step and zero point of uint8 codes from the smallest to the largest value that was seen, zero included."""
    low, high = min(0.0, float(seen.lowest.min())), max(0.0, float(seen.highest.max()))
    step = max(high - low, 1e-20) / _LEVELS
    return np.float32(step), np.uint8(np.clip(round(-low / step), 0, _LEVELS))


def weight_codes(matrix: FloatArray) -> tuple[Any, FloatArray]:
    """Int8 codes of [in, out] and one step for each output channel."""
    steps = np.maximum(np.abs(matrix).max(0), 1e-20).astype(np.float32) / np.float32(_SIGNED_LEVELS)
    return np.clip(np.rint(matrix / steps), -_SIGNED_LEVELS, _SIGNED_LEVELS).astype(np.int8), steps


class _Writer:
    """Collects what is put before the products, so that the graph is walked once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.done = 0
        self._graph = model.graph
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._before: dict[str, list[Any]] = {}
        self._coded: set[str] = set()

    def activation(self, name: str, seen: Seen, products: Sequence[Any]) -> None:
        """Codes of one tensor for all its products."""
        step, zero = activation_scale(seen)
        constants = [self._constant(f"{name}_step", step), self._constant(f"{name}_zero", zero)]
        first = next(node.name for node in self._graph.node if node.name in {each.name for each in products})
        self._before.setdefault(first, []).extend(
            [
                self._node("QuantizeLinear", [name, *constants], f"{name}_codes"),
                self._node("DequantizeLinear", [f"{name}_codes", *constants], f"{name}_coded"),
            ]
        )
        for node in products:
            node.input[0] = f"{name}_coded"

    def weight(self, node: Any) -> None:
        """Codes of one product's matrix."""
        from onnx import numpy_helper

        name = node.input[1]
        if name not in self._coded:
            codes, steps = weight_codes(numpy_helper.to_array(self._tensors[name]))
            zeros = np.zeros(steps.shape, codes.dtype)  # said, because ONNX Runtime moves it where it moves the codes
            values = {"codes": codes, "steps": steps, "zeros": zeros}
            constants = [self._constant(f"{name}_{what}", value) for what, value in values.items()]
            fresh = self._node("DequantizeLinear", constants, f"{name}_coded", axis=1)
            self._before.setdefault(node.name, []).append(fresh)
            self._coded.add(name)
        node.input[1] = f"{name}_coded"

    def finish(self) -> None:
        """Put everything in its place and drop the float matrices that nobody reads any more."""
        nodes = [each for node in self._graph.node for each in (*self._before.get(node.name, []), node)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    @staticmethod
    def _node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
        from onnx import helper

        return helper.make_node(kind, inputs, [output], name=f"{output}_{kind}", **attributes)
