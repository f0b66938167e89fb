"""Weights of a float graph's matrix products in blocks of 4 bits, codes chosen with what the products are fed.

ONNX Runtime's own MatMulNBitsQuantizer makes the nodes; :mod:`edge_mllm_quant.weights.nbits` then chooses scales and
codes again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm_quant.tower.watching import Seen, shared_inputs
from edge_mllm_quant.weights.nbits import refine_matmul, symmetric_nodes

if TYPE_CHECKING:
    import onnx

BLOCK = 32
_ACCURACY_LEVEL = 4
"""Activations in 8 bits too, per block: the fast kernel."""


def quantise_weights(
    model: onnx.ModelProto, seen: Mapping[str, Seen], *, keep: Sequence[str] = (), bits: int = 4
) -> onnx.ModelProto:
    """Return the graph with its MatMul weights as MatMulNBits.

    Args:
        model: float32 graph with its tensors in memory; changed in place.
        seen: Input of a product -> what it held; products whose input is not named keep the nearest codes.
        keep: Names of nodes that stay float32.
        bits: 4 or 8; with 8 the nearest codes are good enough.
    """
    from onnx import numpy_helper
    from onnxruntime.quantization import matmul_nbits_quantizer as library

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights: dict[str, tuple[FloatArray, str]] = {
        node.name: (np.ascontiguousarray(numpy_helper.to_array(tensors[node.input[1]]).T), name)
        for name, nodes in shared_inputs(model).items()
        for node in nodes
        if bits == 4
    }
    logging.getLogger(library.__name__).setLevel(logging.WARNING)
    quantizer = library.MatMulNBitsQuantizer(
        model, bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=_ACCURACY_LEVEL, nodes_to_exclude=[*keep]
    )
    quantizer.process()
    made: onnx.ModelProto = quantizer.model.model
    for node in symmetric_nodes(made):
        matrix, source = weights.get(node.name.removesuffix("_Q4"), (None, ""))
        known = seen.get(source)
        if matrix is not None and known is not None and known.moments.products is not None:
            refine_matmul(node, matrix, known.moments)
    return made
