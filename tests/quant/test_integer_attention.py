"""Attention in integers says what float attention says, and weights evened out around it change nothing."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_mllm.machine import ort
from edge_mllm.machine.cpu import read_processor
from edge_mllm.tower.engines import open_tower
from edge_mllm_quant.recipes.recipe import find_recipe
from edge_mllm_quant.tower import integer_attention
from edge_mllm_quant.tower.head_balance import balance_heads
from edge_mllm_quant.tower.integer_attention import use_integer_attention
from edge_mllm_quant.tower.tower import quantise_tower, relative_error, run_graph

TOKENS, HEADS, WIDTH = 50, 6, 16
FEW = ort.products_overflow(platform.machine(), read_processor().flags)
"""Whether this processor is given keys and values of 7 bits instead of 8."""
ERROR = 0.03 if FEW else 0.02
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
    assert 1e-4 < _error(model) < ERROR


def test_few_tokens_masks_and_many_blocks_keep_the_float_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert use_integer_attention(_model(), least_tokens=TOKENS + 1) == 0
    assert use_integer_attention(_model(mask=True), least_tokens=1) == 0
    monkeypatch.setattr(integer_attention, "BLOCK_BYTES", 1)
    assert use_integer_attention(_model(), least_tokens=1) == 0


def _largest_codes(model: onnx.ModelProto, **levels: float) -> list[int]:
    """Of every tensor that a product of the attention takes on its right."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = sorted({node.input[1] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"})
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT8, None) for name in names)
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    fed = {name: np.array(value, np.float32) for name, value in levels.items()}
    return [int(np.abs(codes.astype(int)).max()) for codes in session.run(None, {**FRESH[0], **fed})]


def test_two_products_fit_16_bits_where_the_processor_sums_them_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operands are computed, so that ONNX Runtime's option for unsigned weights does not reach them."""
    model = _model()
    use_integer_attention(model, least_tokens=1)
    assert max(_largest_codes(model)) == 127
    assert 60 < max(_largest_codes(model, signed_levels=64)) <= 64
    assert 2 * 255 * 64 < 2**15
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["x"], "who does not know the other input need not give it"
    for overflows, expected in ((True, {ort.LEVELS: 64.0}), (False, {})):
        monkeypatch.setattr(ort, "products_overflow", lambda *_, answer=overflows: answer)
        assert ort.levels_here(session) == expected
        assert 1e-4 < _error(model) < 0.03


def test_the_runtime_gives_fewer_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    use_integer_attention(model, least_tokens=1)
    onnx.save_model(model, tmp_path / "vision.onnx")
    plain = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    few, many = (plain.run(None, {**FRESH[0], ort.LEVELS: np.array(value, np.float32)})[0] for value in (64, 127))
    assert not np.array_equal(few, many)
    for overflows, expected in ((True, few), (False, many)):
        monkeypatch.setattr(ort, "products_overflow", lambda *_, answer=overflows: answer)
        tower = open_tower(tmp_path / "vision.onnx", "ort", None)
        assert [node.name for node in tower.get_inputs()] == ["x"]
        (found,) = tower.run(["y"], FRESH[0])
        assert np.linalg.norm(found - expected) < np.linalg.norm(few - many) / 4


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
    assert _error(long.model) < (2 if FEW else 1.5) * _error(short.model) < 0.05
