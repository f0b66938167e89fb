"""Graph quantisation on a graph of two layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edge_mllm.machine.ort import session_options
from edge_mllm_quant.tower.half_storage import store_half
from edge_mllm_quant.tower.int8 import find_products, quantise_dynamic


def _graph() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=(64, 64)).astype(np.float32) for name in ("first", "second")}
    weights["huge"] = np.full((64,), 1e6, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="one"),
        helper.make_node("MatMul", ["a", "second"], ["b"], name="two"),
        helper.make_node("Add", ["b", "huge"], ["y"], name="three"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy"]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(None))
    x = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    return session.run(None, {"x": x})[0]


def test_half_storage_rounds_weights_and_leaves_what_does_not_fit() -> None:
    model = _graph()
    before = _run(model)
    assert store_half(model) == ("first", "second")
    onnx.checker.check_model(model)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored == {"first_half": TensorProto.FLOAT16, "second_half": TensorProto.FLOAT16, "huge": TensorProto.FLOAT}
    assert 0 < np.abs(_run(model) - before).max() < 0.5


def test_half_storage_takes_only_what_is_chosen() -> None:
    model = _graph()
    assert store_half(model, choose=lambda name: name == "second") == ("second",)
    assert store_half(_graph(), at_least=10_000) == ()


def test_int8_keeps_named_weights_float(tmp_path: Path) -> None:
    model = quantise_dynamic(_graph(), keep=find_products(_graph(), ("sec*",)))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("MatMulInteger") == 1
    assert kinds.count("MatMul") == 1
    assert any(tensor.name == "second" for tensor in model.graph.initializer)
    everything = quantise_dynamic(_graph())
    assert [node.op_type for node in everything.graph.node].count("MatMulInteger") == 2
    exact = _run(_graph()) - 1e6
    assert np.abs((_run(everything) - 1e6) - exact).max() < 0.05 * np.abs(exact).max()
