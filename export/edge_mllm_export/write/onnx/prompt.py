"""A second ONNX decoder for prompts: products in 8-bit integers, keys and values its only outputs.

Prefill multiplies many tokens with every matrix, so arithmetic decides its speed, and kernels for 8-bit integers are
several times faster than those that unpack 4-bit blocks. A single token's speed is decided by the bytes that are read:
it stays with ``decoder.onnx``. What only the logits need (the head, the last layer's output and feed-forward) is left
out, and the runtime computes a prompt's last token with ``decoder.onnx``. Constants that both graphs have stay in
``decoder.onnx.data``; ``prompt.onnx.data`` holds the new matrices, made from the checkpoint's own weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_mllm_export.errors import DecoderBuildError
from edge_mllm_export.write.onnx.decoder import GRAPH as DECODER
from edge_mllm_export.write.onnx.long_runs import APPENDED, PRESENT
from edge_mllm_export.write.onnx.refine import float_weights, layers_behind
from edge_mllm_quant.graph.walk import with_branches
from edge_mllm_quant.weights.nbits import NBitsNode, symmetric_nodes
from edge_mllm_quant.weights.token_int8 import TokenProducts, integer_matrix

if TYPE_CHECKING:
    import onnx

GRAPH, DATA = "prompt.onnx", "prompt.onnx.data"
ALIGNMENT = 64
"""Of every tensor in the data file."""
_KEYS_AND_VALUES = (PRESENT, APPENDED)
_WAY_OUT = "leave `prompt_weights` out"


@dataclass(frozen=True, kw_only=True)
class PromptReport:
    """What the prompt graph weighs."""

    bytes: int
    """Graph and weights."""
    products: int
    """Products in integers."""
    kept: tuple[str, ...]
    """Nodes that stay as they are in decoder.onnx."""


def write_prompt_onnx(text_dir: Path, directory: Path) -> PromptReport:
    """Write ``prompt.onnx`` and ``prompt.onnx.data`` beside a finished ``decoder.onnx``.

    Args:
        text_dir: The plain causal LM that the decoder was made from.
        directory: Where decoder.onnx lies.

    Raises:
        DecoderBuildError: A node does not hold the weights that its name says, or no node's weights are known.
    """
    import onnx

    model = onnx.load_model(directory / DECODER, load_external_data=False)
    graph = model.graph
    outputs = [value for value in graph.output if value.name.startswith(_KEYS_AND_VALUES)]
    del graph.output[:]
    graph.output.extend(outputs)
    _drop_unused(graph)
    quantised = [node.name for node in graph.node if node.op_type == "MatMulNBits"]
    with (directory / DATA).open("wb") as data:
        made = _Matrices(data)
        done = _use_integers(model, text_dir, directory, made)
    if not done:
        raise DecoderBuildError(f"no layer of this decoder can be computed in integers; {_WAY_OUT}")
    graph.initializer.extend(made.tensors)
    _drop_unused(graph)
    onnx.save_model(model, directory / GRAPH)
    size = sum((directory / name).stat().st_size for name in (GRAPH, DATA))
    return PromptReport(bytes=size, products=len(done), kept=tuple(name for name in quantised if name not in done))


def _use_integers(model: onnx.ModelProto, text_dir: Path, directory: Path, made: _Matrices) -> set[str]:
    """Replace the products whose weights are known, in place; return their names."""
    known = {node.name: node for node in symmetric_nodes(model, bits=(4, 8)) if layers_behind(node.name)}
    inputs: dict[str, TokenProducts] = {}
    nodes: list[Any] = []
    for node in model.graph.node:
        if node.name not in known:
            nodes.append(node)
            continue
        weights = float_weights(_loaded(known[node.name], directory), text_dir, layers_behind(node.name), _WAY_OUT)
        matrix = integer_matrix(weights)
        if node.input[0] not in inputs:
            inputs[node.input[0]] = TokenProducts(node)
        stored = made.add(f"{node.name}/codes", matrix.codes), made.add(f"{node.name}/steps", matrix.steps)
        nodes += inputs[node.input[0]].multiply(node, *stored)
    made.tensors += [constant for products in inputs.values() for constant in products.constants]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return set(known)


def _loaded(node: NBitsNode, directory: Path) -> NBitsNode:
    """The node with copies of its tensors in memory."""
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    copies = []
    for tensor in (node.codes, node.scales):
        copy = type(tensor)()
        copy.CopyFrom(tensor)
        if uses_external_data(copy):
            load_external_data_for_tensor(copy, str(directory))
        copies.append(copy)
    return replace(node, codes=copies[0], scales=copies[1])


class _Matrices:
    """Tensors on their way to the data file, one at a time."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.tensors: list[Any] = []

    def add(self, name: str, values: npt.NDArray[Any]) -> str:
        """Append one; return its name."""
        from onnx import TensorProto, helper

        self._stream.write(bytes(-self._stream.tell() % ALIGNMENT))
        place = {"location": DATA, "offset": self._stream.tell(), "length": values.nbytes}
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = TensorProto(name=name, dims=values.shape, data_type=kind, data_location=TensorProto.EXTERNAL)
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._stream.write(np.ascontiguousarray(values).data)
        self.tensors.append(tensor)
        return name


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes, inputs and constants that no output needs, in place."""
    needed, nodes = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(name for each in with_branches([node]) for name in each.input)
            nodes.append(node)
    nodes.reverse()
    for field, kept in (
        (graph.node, nodes),
        (graph.input, [value for value in graph.input if value.name in needed]),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed]),
        (graph.value_info, []),
    ):
        del field[:]
        field.extend(kept)
