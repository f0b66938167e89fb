"""Rows of visual tokens that further layers of an ONNX decoder take, which onnxruntime-genai's builder leaves out.

``inputs_embeds`` becomes wider: behind a token's embedding lies one row for each of the first layers, which is added to
what that layer gives (DeepStack, Meng et al., arXiv 2406.04334). For text these rows are zero and change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm_export.errors import DecoderBuildError

if TYPE_CHECKING:
    import onnx

_INPUT = "inputs_embeds"
_RESIDUAL = 1
"""Of SkipSimplifiedLayerNormalization's inputs the one that a layer's feed-forward part gives."""


def take_deepstack_rows(model: onnx.ModelProto, layers: int) -> None:
    """Have the first layers add rows of their own, in place.

    Args:
        model: As onnxruntime-genai's builder wrote it.
        layers: How many.

    Raises:
        DecoderBuildError: The graph is another one than the builder writes.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    taken = next(value for value in graph.input if value.name == _INPUT).type.tensor_type.shape.dim[2]
    width = int(taken.dim_value)
    norms = {node.name: node for node in graph.node if node.op_type == "SkipSimplifiedLayerNormalization"}
    parts = ["/deepstack/embeddings", *(f"/deepstack/layer_{layer}" for layer in range(layers))]
    for node in graph.node:
        node.input[:] = [parts[0] if name == _INPUT else name for name in node.input]
    for layer, rows in enumerate(parts[1:]):
        after = norms.get(f"/model/layers.{layer + 1}/input_layernorm/SkipLayerNorm")
        if after is None:
            raise DecoderBuildError(f"layer {layer} of onnxruntime-genai's graph does not end as it should")
        given, added = after.input[_RESIDUAL], f"{rows}/Add/output_0"
        _insert(graph, after, helper.make_node("Add", [given, rows], [added], name=f"{rows}/Add"))
        after.input[_RESIDUAL] = added
    sizes = numpy_helper.from_array(np.full(1 + layers, width, np.int64), "/deepstack/sizes")
    graph.initializer.append(sizes)
    graph.node.insert(0, helper.make_node("Split", [_INPUT, sizes.name], parts, name="/deepstack/Split", axis=-1))
    taken.dim_value = width * (1 + layers)


def _insert(graph: onnx.GraphProto, before: Any, node: Any) -> None:
    graph.node.insert(list(graph.node).index(before), node)
