"""Move outlier channels of activations into the weights behind them, so that 8 bits are enough for both.

SmoothQuant (Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
2022, arXiv:2211.10438, equation 4): an input channel with peak ``a`` and largest weight ``w`` is divided by
``a**strength / w**(1 - strength)`` and its weights are multiplied by the same, so the product stays as it was. Where
the input comes from a layer norm that feeds nothing else, the division goes into the norm; elsewhere it is one more
multiplication by a constant vector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm_quant.tower.watching import shared_inputs

if TYPE_CHECKING:
    import onnx

Where = Literal["none", "norms", "all"]
STRENGTH = 0.5
"""The paper's alpha: half of the trouble stays with the activations."""
_LEAST, _MOST = 1e-3, 1e3


def migrate_outliers(
    model: onnx.ModelProto, peaks: Mapping[str, FloatArray], *, where: Where = "all", strength: float = STRENGTH
) -> tuple[str, ...]:
    """Even out the inputs of products, in place; the graph computes the same as before.

    Args:
        model: float32 graph with its tensors in memory.
        peaks: Tensor name -> largest absolute value of each channel, float32 [channels] (see
            :mod:`edge_mllm_quant.tower.watching`); inputs that are not named stay as they are.
        where: All inputs, only those of layer norms (which costs nothing when the graph runs), or none.
        strength: Between 0 and 1: how much of the peaks goes into the weights.

    Returns:
        Names of the inputs that were evened out.
    """
    from onnx import numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    makers = {name: node for node in graph.node for name in node.output}
    done = []
    for name, products in shared_inputs(model).items():
        if where == "none" or name not in peaks or any(uses[node.input[1]] > 1 for node in products):
            continue
        alone = uses[name] == len(products)
        parts = _norm_parts(makers.get(name), tensors, uses) if alone else ()
        if where == "norms" and not parts:
            continue
        weights = [numpy_helper.to_array(tensors[node.input[1]]) for node in products]
        factor = _factors(peaks[name], np.max([np.abs(matrix).max(1) for matrix in weights], axis=0), strength)
        for node, matrix in zip(products, weights, strict=True):
            _replace(tensors[node.input[1]], matrix * factor[:, None])
        for part in parts:
            _replace(tensors[part], numpy_helper.to_array(tensors[part]) / factor)
        if not parts:
            _divide(graph, name, products, factor)
        done.append(name)
    return tuple(done)


def _divide(graph: onnx.GraphProto, name: str, products: Sequence[onnx.NodeProto], factor: FloatArray) -> None:
    """Put a multiplication with 1 / ``factor`` between a tensor and the products that read it."""
    from onnx import helper, numpy_helper

    constant = numpy_helper.from_array((1 / factor).astype(np.float32), f"{name}_migration")
    graph.initializer.append(constant)
    place = min(index for index, node in enumerate(graph.node) if node in products)
    for product in products:
        product.input[0] = f"{name}_even"
    graph.node.insert(place, helper.make_node("Mul", [name, constant.name], [f"{name}_even"], name=f"{name}_mul"))


def _factors(peaks: FloatArray, weights: FloatArray, strength: float) -> FloatArray:
    """What each channel is divided by, float32 [channels]; dead channels stay."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = peaks**strength / weights ** (1 - strength)
    alive = np.isfinite(factor) & (factor > 0)
    found: FloatArray = np.where(alive, np.clip(factor, _LEAST, _MOST), 1).astype(np.float32)
    return found


def _norm_parts(
    node: onnx.NodeProto | None, tensors: Mapping[str, onnx.TensorProto], uses: Counter[str]
) -> tuple[str, ...]:
    """Scale and bias of a layer norm, where they are constants that nobody else uses."""
    parts = tuple(node.input[1:]) if node is not None and node.op_type == "LayerNormalization" else ()
    return parts if all(part in tensors and uses[part] == 1 for part in parts) else ()


def _replace(tensor: onnx.TensorProto, values: npt.NDArray[Any]) -> None:
    from onnx import numpy_helper

    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
