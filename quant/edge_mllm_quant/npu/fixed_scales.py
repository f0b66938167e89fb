"""A plain float graph with fixed scales: QuantizeLinear and DequantizeLinear around every operator.

ONNX Runtime's quantiser with the settings that its documentation has for Qualcomm's NPUs does the work
(https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html). The ranges are ours: what samples do not
reach is cut off, and of 16 bits there is one to spare for pictures that are unlike them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edge_mllm_quant.graph.files import PROTOBUF_LIMIT, save_graph, tensor_bytes
from edge_mllm_quant.tower.int8 import quiet_quantiser
from edge_mllm_quant.tower.watching import Feeds, watch_values

if TYPE_CHECKING:
    import onnx

Bits = Literal[8, 16]
_ROOM: dict[int, float] = {8: 1.0, 16: 2.0}
"""Ranges are as many times what the samples reached; what that does for pictures unlike them is in npu.json."""
_BOUNDS = {"Softmax": (0.0, 1.0), "Sigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0)}
"""Operators whose outputs stay between these whatever comes in."""
Narrow = Literal["attention", "gelu"]
"""Where 8 bits do within a graph of 16: scores, shares and what they mix; the layer between two products."""
NARROW: tuple[Narrow, ...] = ("gelu",)
"""On the starter 8 bits in attention lose what pictures unlike the samples need; see npu.json."""


def fix_scales(
    model: onnx.ModelProto, samples: Sequence[Feeds], *, activations: Bits, narrow: Sequence[Narrow] = NARROW
) -> onnx.ModelProto:
    """The graph with 8-bit weights and activations of 8 or 16 bits.

    Args:
        model: From :func:`edge_mllm_quant.npu.plain_graph.plain_graph`.
        samples: Its inputs, at least one; what they do not reach is cut off.
        activations: Bits of what goes from operator to operator.
        narrow: Where they are 8 in a graph of 16: fewer bits are fewer passes of a product.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config, qnn_preprocess_model

    large = tensor_bytes(model) >= PROTOBUF_LIMIT
    with TemporaryDirectory() as scratch, quiet_quantiser():
        source, prepared, out = (Path(scratch) / name for name in ("plain.onnx", "prepared.onnx", "fixed.onnx"))
        save_graph(model, source)
        if qnn_preprocess_model(source, prepared, save_as_external_data=large):
            source = prepared
        graph = onnx.load_model(source)
        eight = narrow_tensors(graph, narrow) if activations == 16 else []
        settings = get_qnn_qdq_config(
            source,
            _Samples(samples[:1]),  # every range that it could find out is given
            activation_type=QuantType.QUInt16 if activations == 16 else QuantType.QUInt8,
            weight_type=QuantType.QUInt8,  # layer norms with signed ones would be left to the CPU
            per_channel=True,
            init_overrides={name: [{"quant_type": QuantType.QUInt8}] for name in eight},
        )
        chosen = settings.extra_options.setdefault("TensorQuantOverrides", {})
        for name, reached in _ranges(graph, samples).items():
            entry = chosen.setdefault(name, [{}])[0]
            for part in (entry, *(entry[key] for key in ("convert",) if key in entry)):
                bits = 8 if part.get("quant_type") == QuantType.QUInt8 else activations
                part["rmin"], part["rmax"] = reached.with_room(_ROOM[bits])
        settings.use_external_data_format = large
        quantize(source, out, settings)
        return onnx.load_model(out)


def narrow_tensors(model: onnx.ModelProto, places: Sequence[Narrow]) -> list[str]:
    """Names of the tensors that 8 bits do for in these places."""
    readers = {name: node for node in model.graph.node for name in node.input}
    makers = {name: node for node in model.graph.node for name in node.output}
    found: list[str] = []
    for node in model.graph.node:
        if node.op_type == "Softmax" and "attention" in places:
            found += [node.input[0], node.output[0], readers[node.output[0]].output[0]]
        elif node.op_type == "Gelu" and "gelu" in places:
            found += [node.input[0], node.output[0]]
            while (maker := makers.get(found[-2])) is not None and maker.op_type == "Reshape":
                found.insert(-1, maker.input[0])
            while (reader := readers.get(found[-1])) is not None and reader.op_type == "Reshape":
                found.append(reader.output[0])
    return found


@dataclass(frozen=True)
class _Range:
    """What a tensor reached, and between what it stays."""

    lowest: float
    highest: float
    bounds: tuple[float, float]

    def with_room(self, times: float) -> tuple[np.float32, np.float32]:
        low, high = min(0.0, self.lowest) * times, max(0.0, self.highest) * times
        return np.float32(max(low, self.bounds[0])), np.float32(min(high, self.bounds[1]))


def _ranges(model: onnx.ModelProto, samples: Sequence[Feeds]) -> dict[str, _Range]:
    """Of every tensor between operators."""
    bounded = [node for node in model.graph.node if node.op_type in _BOUNDS]
    bounds = {name: _BOUNDS[node.op_type] for node in bounded for name in node.output}
    names = [port.name for port in model.graph.input] + [name for node in model.graph.node for name in node.output]
    seen = watch_values(model, names, samples)
    return {
        name: _Range(float(entry.lowest.min()), float(entry.highest.max()), bounds.get(name, (-np.inf, np.inf)))
        for name, entry in seen.items()
    }


class _Samples:
    """Inputs one after the other, as the quantiser asks for them."""

    def __init__(self, samples: Sequence[Feeds]) -> None:
        self._rest = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        feeds = next(self._rest, None)
        return None if feeds is None else dict(feeds)
