"""Keys and values of an ONNX decoder in 8 bits: one scale for each channel of each head, measured beforehand.

ONNX Runtime's GroupQueryAttention takes such a cache (com.microsoft, ``k_quant_type`` PER_CHANNEL, scales
[1, heads, 1, head_dim]); the graph's inputs and outputs of the cache become int8, and the runtime binds what it finds.
Many tokens at once go another way, see :mod:`edge_mllm_export.write.onnx.long_runs`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm_export.errors import DecoderBuildError
from edge_mllm_export.write.onnx.long_runs import QUANTISED, SCALES, compute_long_runs_in_floats

if TYPE_CHECKING:
    import onnx

_LAYER = re.compile(r"past_key_values\.(\d+)\.key")
_ROOM = np.float32(1.1)
"""Prompts that were not measured may go a little higher than those that were."""
_LEVELS = np.float32(127)


def quantise_cache(model: onnx.ModelProto, peaks: Mapping[int, tuple[FloatArray, FloatArray]]) -> None:
    """Give a decoder graph a cache of 8-bit integers, in place.

    Args:
        model: As onnxruntime-genai's builder wrote it.
        peaks: Layer -> largest absolute key and value of each channel, float32 [heads, head_dim].

    Raises:
        DecoderBuildError: A layer's attention keeps another kind of cache, or was not measured.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    nodes = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    cached = [
        value for value in (*graph.input, *graph.output) if value.name.startswith(("past_key_values.", "present."))
    ]
    if not nodes or len(cached) != 4 * len(nodes):
        raise DecoderBuildError("this decoder keeps more than keys and values of attention; leave `kv='q8'` out")
    for node in nodes:
        found = _LAYER.fullmatch(node.input[3])
        if found is None or int(found[1]) not in peaks:
            raise DecoderBuildError(f"the cache of {node.name} was not measured; leave `kv='q8'` out")
        inputs = [*node.input, *[""] * (SCALES - len(node.input))]
        for kind, peak in zip("kv", peaks[int(found[1])], strict=True):
            scale = np.maximum(peak * _ROOM / _LEVELS, np.float32(1e-8))[None, :, None, :].astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(scale, f"{node.name}/{kind}_scale"))
            inputs.append(f"{node.name}/{kind}_scale")
        settings = zip(QUANTISED, ("PER_CHANNEL", "PER_CHANNEL", 8), strict=True)
        node.attribute.extend(helper.make_attribute(*setting) for setting in settings)
        del node.input[:]
        node.input.extend(inputs)
    for value in cached:
        value.type.tensor_type.elem_type = TensorProto.INT8
    compute_long_runs_in_floats(model)
