"""Attention in integers says what float attention says, and weights evened out around it change nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_mllm_quant.recipes.recipe import find_recipe
from edge_mllm_quant.tower import integer_attention
from edge_mllm_quant.tower.head_balance import balance_heads
from edge_mllm_quant.tower.integer_attention import use_integer_attention
from edge_mllm_quant.tower.tower import quantise_tower, relative_error, run_graph

TOKENS, HEADS, WIDTH = 50, 6, 16
SIDES = ["tiles", TOKENS, HEADS * WIDTH]


def _model(outlier: float = 1.0, *, mask: bool = False) -> onnx.ModelProto:
    """Projections, attention, output layer; one channel of the keys and one of the values stick out."""
    random = np.random.default_rng(0)
    tensors, nodes, values = [], [], []
    for name in ("query", "key", "value", "out"):
        weight = random.normal(size=(SIDES[2], SIDES[2])).astype(np.float32) * 0.15
        bias = random.normal(size=SIDES[2]).astype(np.float32)
        if name in ("key", "value"):
            weight[:, 5] *= outlier
            bias[7] += outlier
        tensors += [numpy_helper.from_array(weight, name + "_weight"), numpy_helper.from_array(bias, name + "_bias")]
        source = "attended_flat" if name == "out" else "x"
        nodes += [helper.make_node("MatMul", [source, name + "_weight"], [name + "_product"], name=name)]
        nodes += [helper.make_node("Add", [name + "_product", name + "_bias"], ["y" if name == "out" else name])]
        values += [helper.make_tensor_value_info(end, TensorProto.FLOAT, SIDES) for end in (name, name + "_product")]
    values += [helper.make_tensor_value_info("attended", TensorProto.FLOAT, SIDES)]
    inputs = ["query", "key", "value", *(["", "mask"] if mask else [])]
    attributes = {"domain": "com.microsoft", "num_heads": HEADS, "scale": WIDTH**-0.5, "name": "attention"}
    nodes.insert(6, helper.make_node("MultiHeadAttention", inputs, ["attended"], **attributes))
    nodes.insert(7, helper.make_node("Reshape", ["attended", "flat"], ["attended_flat"]))
    tensors.append(numpy_helper.from_array(np.array([0, 0, -1]), "flat"))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SIDES) for name in "xy"]
    masks = [helper.make_tensor_value_info("mask", TensorProto.INT32, ["tiles", TOKENS])] if mask else []
    graph = helper.make_graph(nodes, "g", [ports[0], *masks], ports[1:], tensors, value_info=values)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _samples(seed: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [{"x": random.normal(size=(2, *SIDES[1:])).astype(np.float32)} for _ in range(3)]


SAMPLES, FRESH = _samples(1), _samples(2)


def _error(model: onnx.ModelProto, outlier: float = 1.0) -> float:
    return relative_error(run_graph(_model(outlier), FRESH), run_graph(model, FRESH))


@pytest.mark.parametrize(("heads", "rows", "products"), [(1, 50, 12), (4, 50, 4), (4, 17, 12), (8, 1, 100)])
def test_blocks_of_integer_attention_are_the_attention(
    heads: int, rows: int, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integer_attention, "MOST_BLOCKS", 50)
    monkeypatch.setattr(integer_attention, "BLOCK_HEADS", heads)
    monkeypatch.setattr(integer_attention, "BLOCK_BYTES", 4 * TOKENS * min(heads, HEADS) * rows)
    model = _model()
    assert use_integer_attention(model, least_tokens=TOKENS) == 1
    onnx.checker.check_model(model)
    kinds = [node.op_type for node in model.graph.node]
    assert "MultiHeadAttention" not in kinds
    assert kinds.count("MatMulIntegerToFloat") == products
    assert 1e-4 < _error(model) < 0.02


def test_few_tokens_masks_and_many_blocks_keep_the_float_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert use_integer_attention(_model(), least_tokens=TOKENS + 1) == 0
    assert use_integer_attention(_model(mask=True), least_tokens=1) == 0
    monkeypatch.setattr(integer_attention, "BLOCK_BYTES", 1)
    assert use_integer_attention(_model(), least_tokens=1) == 0


def test_tiles_of_zeros_give_no_nonsense() -> None:
    model = _model()
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_bias"):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(SIDES[2], np.float32), tensor.name))
    use_integer_attention(model, least_tokens=1)
    (found,) = run_graph(model, [{"x": np.zeros((1, *SIDES[1:]), np.float32)}])
    assert not found.any()


def test_balance_changes_no_result_and_survives_outliers() -> None:
    plain, balanced = _model(60.0), _model(60.0)
    assert balance_heads(balanced, SAMPLES) == 1
    assert _error(balanced, 60.0) < 1e-4
    for model in (plain, balanced):
        use_integer_attention(model, least_tokens=1)
    assert _error(plain, 60.0) > 3 * _error(balanced, 60.0)


def test_balance_leaves_layers_alone_that_others_read() -> None:
    model = _model()
    model.graph.output.append(helper.make_tensor_value_info("key_bias", TensorProto.FLOAT, [SIDES[2]]))
    assert balance_heads(model, SAMPLES) == 0


def test_the_int8_recipe_computes_long_attention_in_integers() -> None:
    recipe = find_recipe("vision", "int8")
    short, long = (quantise_tower(_model(), recipe, SAMPLES, integer_from=n) for n in (TOKENS + 1, TOKENS))
    assert "MultiHeadAttention" in {node.op_type for node in short.model.graph.node}
    assert "MatMulIntegerToFloat" in {node.op_type for node in long.model.graph.node}
    assert long.report["balanced"] == 1
    assert _error(long.model) < 1.5 * _error(short.model) < 0.05
