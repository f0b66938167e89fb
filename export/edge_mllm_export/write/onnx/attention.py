"""What onnxruntime-genai's builder leaves to be done about attention.

Pictures that see themselves: the kernel's own masks, causal and sliding, give way to a bias that the graph computes
from one more input, ``blocks`` int64 [1, n]: a number for each new token, the same for all tokens of one picture and -1
for text. A token sees what a causal mask lets it see and the tokens of its own block, and of both, on a sliding layer,
what the window holds (transformers, Gemma 3, ``create_masks_for_vision_model``). A block must be computed in one run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm_export.errors import DecoderBuildError

if TYPE_CHECKING:
    import onnx

BLOCKS = "blocks"
_BIAS_PLACE = 10
"""Of GroupQueryAttention's inputs."""
_HIDDEN = np.float32(-1e30)
_TEXT = -1


def attend_both_ways(model: onnx.ModelProto) -> None:
    """Let the tokens of a picture see each other in both directions, in place.

    Raises:
        DecoderBuildError: The graph has no attention that can take a bias.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    layers = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    if not layers:
        raise DecoderBuildError("the decoder's attention takes no bias, so pictures cannot see themselves")
    builder = _Nodes(graph)
    later, distance = _causal(builder)
    biases: dict[int, str] = {}
    for node in layers:
        window = _take_window(node)
        if window not in biases:
            biases[window] = _bias(builder, later, distance, window)
        inputs = list(node.input) + [""] * (_BIAS_PLACE + 1 - len(node.input))
        inputs[_BIAS_PLACE] = biases[window]
        del node.input[:]
        node.input.extend(inputs)
        node.attribute.append(helper.make_attribute("causal", 0))
    graph.input.append(helper.make_tensor_value_info(BLOCKS, TensorProto.INT64, [1, "sequence_length"]))
    for place, node in enumerate(builder.nodes):
        graph.node.insert(place, node)


def _take_window(node: Any) -> int:
    """A layer's window, which the bias replaces; -1 where it has none."""
    for attribute in node.attribute:
        if attribute.name == "local_window_size":
            window, attribute.i = int(attribute.i), -1
            return window
    return -1


class _Nodes:
    """Nodes in the order they are made, and the constants they need."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.nodes: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        """An initialiser."""
        from onnx import numpy_helper

        full = f"/blocks/{name}"
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), full))
        return full

    def add(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output, named after it."""
        from onnx import helper

        full = f"/blocks/{name}"
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{full}/output_0"], name=full, **attributes))
        return f"{full}/output_0"


def _causal(to: _Nodes) -> tuple[str, str]:
    """Which cells come after a token without being of its block, bool [n, total]; and how far they lie before it."""
    zero, one = to.constant("zero", np.int64(0)), to.constant("one", np.int64(1))
    axis, first = to.constant("axis", np.array([0])), to.constant("first", np.array([1]))
    new = to.add("Squeeze", "new", to.add("Shape", "new_shape", BLOCKS, start=1, end=2))
    total = to.add("Squeeze", "total", to.add("Shape", "total_shape", "attention_mask", start=1, end=2))
    past = to.add("Sub", "past", total, new)
    rows = to.add("Unsqueeze", "rows", to.add("Range", "queries", past, total, one), first)
    distance = to.add(
        "Sub", "distance", rows, to.add("Unsqueeze", "cells", to.add("Range", "all", zero, total, one), axis)
    )
    flat = to.add("Reshape", "flat", BLOCKS, to.constant("line", np.array([-1])))
    width = to.add(
        "Concat", "width", to.add("Unsqueeze", "past_width", past, axis), to.constant("none", np.array([0])), axis=0
    )
    keys = to.add("Pad", "keys", flat, width, to.constant("text", np.int64(_TEXT)))
    mine = to.add("Unsqueeze", "mine", flat, first)
    same = to.add("Equal", "same", mine, to.add("Unsqueeze", "theirs", keys, axis))
    picture = to.add("GreaterOrEqual", "picture", mine, zero)
    other = to.add("Not", "other", to.add("And", "own", same, picture))
    return to.add("And", "later", to.add("Less", "after", distance, zero), other), distance


def _bias(to: _Nodes, later: str, distance: str, window: int) -> str:
    """float32 [1, 1, n, total], for layers with this window."""
    name = f"window_{window}" if window > 0 else "full"
    hidden = later
    if window > 0:
        far = to.add("GreaterOrEqual", f"{name}/far", distance, to.constant(f"{name}/size", np.int64(window)))
        hidden = to.add("Or", f"{name}/hidden", later, far)
    seen, unseen = to.constant(f"{name}/seen", np.float32(0)), to.constant(f"{name}/unseen", _HIDDEN)
    bias = to.add("Where", f"{name}/bias", hidden, unseen, seen)
    return to.add("Unsqueeze", f"{name}/heads", bias, to.constant(f"{name}/axes", np.array([0, 1])))
