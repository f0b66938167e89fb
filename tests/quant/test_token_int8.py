"""Integer products with a step for every row: near the float ones, and each row for itself."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_mllm.machine.ort import session_options
from edge_mllm_quant.weights.token_int8 import TokenProducts, integer_matrix

COLUMNS, ROWS = 96, (160, 40)
RANDOM = np.random.default_rng(0)
WEIGHTS = [RANDOM.normal(size=(rows, COLUMNS)).astype(np.float32) for rows in ROWS]
INPUT = RANDOM.normal(size=(1, 50, COLUMNS)).astype(np.float32)


def test_weights_are_within_half_a_step_of_every_row() -> None:
    weights = WEIGHTS[0] * np.linspace(0, 30, ROWS[0], dtype=np.float32)[:, None]
    matrix = integer_matrix(weights)
    assert (np.abs(matrix.values() - weights) <= 0.501 * matrix.steps[:, None]).all()
    np.testing.assert_allclose(np.abs(matrix.values()).max(axis=1), np.abs(weights).max(axis=1), rtol=1e-6)


@pytest.fixture(scope="module")
def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """With the options of the runtime."""
    return opened(model, session_options(None))


def opened(model: onnx.ModelProto, options: ort.SessionOptions) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Two products of one input."""
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"], name=f"product{i}") for i in range(len(ROWS))]
    products = TokenProducts(nodes[0])
    made, stored = [], []
    for number, (node, weights) in enumerate(zip(nodes, WEIGHTS, strict=True)):
        matrix = integer_matrix(weights)
        made += products.multiply(node, f"codes{number}", f"steps{number}")
        stored.append(numpy_helper.from_array(matrix.codes, f"codes{number}"))
        stored.append(numpy_helper.from_array(matrix.steps, f"steps{number}"))
    assert [node.op_type for node in made].count("QuantizeLinear") == 1
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [1, "n", rows]) for i, rows in enumerate(ROWS)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n", COLUMNS])]
    graph = helper.make_graph(made, "g", inputs, outputs, [*stored, *products.constants])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return model


def test_products_are_exact_where_weights_are_made_unsigned(model: onnx.ModelProto) -> None:
    """On x86 without VNNI; ONNX Runtime then needs a zero of its own for each product."""
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len({node.input[5] for node in products}) == len(products) == len(ROWS)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    steps = np.abs(INPUT).max(axis=-1, keepdims=True) / np.float32(127)
    codes = np.clip(np.rint(INPUT / steps), -128, 127)
    for found, weights in zip(opened(model, options).run(None, {"x": INPUT}), WEIGHTS, strict=True):
        np.testing.assert_allclose(found, codes @ integer_matrix(weights).values().T * steps, rtol=1e-4, atol=1e-4)


def test_products_are_near_the_float_ones(session: ort.InferenceSession) -> None:
    for found, weights in zip(session.run(None, {"x": INPUT}), WEIGHTS, strict=True):
        exact = INPUT @ weights.T
        assert np.linalg.norm(found - exact) / np.linalg.norm(exact) < 0.015


def test_a_row_depends_on_itself_alone(session: ort.InferenceSession) -> None:
    """Neither on where the input is cut nor on a row that goes a thousand times as far; a row of zeros gives zeros."""
    whole = session.run(None, {"x": INPUT})
    wild = INPUT.copy()
    wild[0, 7] *= 1000
    wild[0, 30] = 0
    changed = session.run(None, {"x": wild})
    for number in range(len(ROWS)):
        parts = [session.run(None, {"x": INPUT[:, cut]})[number] for cut in (slice(0, 13), slice(13, None))]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole[number])
        others = np.setdiff1d(np.arange(INPUT.shape[1]), [7, 30])
        np.testing.assert_array_equal(changed[number][:, others], whole[number][:, others])
        np.testing.assert_allclose(changed[number][:, 7], 1000 * whole[number][:, 7], rtol=1e-5)
        assert not changed[number][:, 30].any()
