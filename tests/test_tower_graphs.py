"""The towers that benchmarks/tower.py compares say what the plain one says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from tower_graphs import Blocks, pack_projections, rewrite_attention

from edge_mllm.machine.ort import session_options

TOKENS, HEADS, WIDTH = 48, 2, 16
SIDES = ["tiles", TOKENS, HEADS * WIDTH]


def _model() -> onnx.ModelProto:
    """Three projections with biases, attention."""
    random = np.random.default_rng(0)
    tensors, nodes, values = [], [], []
    for name in ("query", "key", "value"):
        weight = random.normal(size=(SIDES[2], SIDES[2])).astype(np.float32) * 0.3
        tensors += [numpy_helper.from_array(weight, name + "_weight")]
        tensors += [numpy_helper.from_array(random.normal(size=SIDES[2]).astype(np.float32), name + "_bias")]
        nodes += [helper.make_node("MatMul", ["x", name + "_weight"], [name + "_product"])]
        nodes += [helper.make_node("Add", [name + "_product", name + "_bias"], [name])]
        values += [helper.make_tensor_value_info(name, TensorProto.FLOAT, SIDES)]
    attributes = {"domain": "com.microsoft", "num_heads": HEADS, "scale": WIDTH**-0.5}
    nodes += [helper.make_node("MultiHeadAttention", ["query", "key", "value"], ["y"], **attributes)]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SIDES) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors, value_info=values)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _run(model: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(3, *SIDES[1:])).astype(np.float32)
    return onnxruntime.InferenceSession(model.SerializeToString(), session_options(None)).run(None, {"x": x})[0]


@pytest.mark.parametrize("most_bytes", [1 << 20, 4 * TOKENS * 20])
@pytest.mark.parametrize(("scores", "values", "error"), [(0, 0, 1e-6), (0, 1, 0.01), (1, 1, 0.03)])
def test_blocks_of_attention_are_the_attention(scores: int, values: int, error: float, most_bytes: int) -> None:
    model = _model()
    exact = _run(model)
    blocks = Blocks(int8_scores=bool(scores), int8_values=bool(values), most_bytes=most_bytes)
    assert rewrite_attention(model, blocks) == 1
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Softmax") == HEADS * (1 if most_bytes > 4 * TOKENS**2 else 3)
    assert kinds.count("MatMulIntegerToFloat") == (scores + values) * kinds.count("Softmax")
    ours = _run(model)
    assert np.linalg.norm(ours - exact) < error * np.linalg.norm(exact)
    assert values == 0 or not np.array_equal(ours, exact)


def test_packed_projections_are_the_projections() -> None:
    model = _model()
    exact = _run(model)
    assert pack_projections(model) == 1
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Add", "Split", "MultiHeadAttention"]
    np.testing.assert_allclose(_run(model), exact, rtol=0, atol=1e-5)
