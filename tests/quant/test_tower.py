"""Quantised towers on a synthetic one with planted outlier channels, where plain 8 bits fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_mllm.errors import SettingError
from edge_mllm_quant.recipes.override import OverrideError
from edge_mllm_quant.recipes.recipe import find_recipe
from edge_mllm_quant.tower.int8 import quantise_dynamic
from edge_mllm_quant.tower.migration import migrate_outliers
from edge_mllm_quant.tower.static import activation_scale
from edge_mllm_quant.tower.tower import quantise_tower, relative_error, run_graph
from edge_mllm_quant.tower.watching import Seen, watch_inputs
from edge_mllm_quant.weights.activations import Moments

WIDTH, HIDDEN, OUT = 64, 128, 32
SAMPLES = [{"x": np.random.default_rng(10 + n).normal(size=(40, WIDTH)).astype(np.float32)} for n in range(6)]
FRESH = [{"x": np.random.default_rng(90 + n).normal(size=(40, WIDTH)).astype(np.float32)} for n in range(3)]


def _tower(outlier: float = 1.0) -> onnx.ModelProto:
    """Norm, feed-forward with residual, norm, projector; a channel behind the first norm and a hidden one stick out."""
    random = np.random.default_rng(0)
    tensors = {
        "norm1.weight": np.ones(WIDTH),
        "norm1.bias": random.normal(size=WIDTH) * 0.1,
        "fc1.weight": random.normal(size=(WIDTH, HIDDEN)) / 8,
        "fc2.weight": random.normal(size=(HIDDEN, WIDTH)) / 11,
        "norm2.weight": np.ones(WIDTH),
        "norm2.bias": np.zeros(WIDTH),
        "projector.weight": random.normal(size=(WIDTH, OUT)) / 8,
    }
    for name in ("norm1.weight", "norm1.bias"):
        tensors[name][3] *= outlier
    tensors["fc1.weight"][3] /= outlier
    tensors["fc1.weight"][:, 7] *= outlier
    tensors["fc2.weight"][7] /= outlier
    nodes = [
        helper.make_node("LayerNormalization", ["x", "norm1.weight", "norm1.bias"], ["a"], name="norm1"),
        helper.make_node("MatMul", ["a", "fc1.weight"], ["b"], name="fc1"),
        helper.make_node("Relu", ["b"], ["c"], name="relu"),
        helper.make_node("MatMul", ["c", "fc2.weight"], ["d"], name="fc2"),
        helper.make_node("Add", ["x", "d"], ["e"], name="add"),
        helper.make_node("LayerNormalization", ["e", "norm2.weight", "norm2.bias"], ["f"], name="norm2"),
        helper.make_node("MatMul", ["f", "projector.weight"], ["y"], name="projector"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", w]) for n, w in (("x", WIDTH), ("y", OUT))]
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], stored)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _error(model: onnx.ModelProto, outlier: float) -> float:
    return relative_error(run_graph(_tower(outlier), FRESH), run_graph(model, FRESH))


def _static(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """ONNX Runtime's static quantisation with scales from the samples."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(SAMPLES)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rest, None)

    source, out = folder / "in.onnx", folder / "out.onnx"
    onnx.save_model(model, source)
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    inputs_only = {"OpTypesToExcludeOutputQuantization": ["MatMul"]}
    quantize_static(source, out, Reader(), op_types_to_quantize=["MatMul"], extra_options=inputs_only, **kinds)
    return onnx.load_model(out)


def _peaks(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {name: seen.peaks for name, seen in watch_inputs(model, SAMPLES).items()}


def test_what_is_seen_is_what_flows() -> None:
    seen = watch_inputs(_tower(), SAMPLES, products_below=100)
    assert set(seen) == {"a", "c", "f"}
    rows = np.concatenate([sample["x"] for sample in SAMPLES])
    normed = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
    bias = numpy_helper.to_array(next(t for t in _tower().graph.initializer if t.name == "norm1.bias"))
    expected = normed + bias
    assert seen["a"].moments.rows == 240
    assert np.allclose(seen["a"].peaks, np.abs(expected).max(0), rtol=1e-4)
    assert np.allclose(seen["a"].moments.products, expected.T @ expected / 240, atol=1e-4)
    assert seen["c"].moments.products is None and seen["c"].moments.squares.shape == (HIDDEN,)


@pytest.mark.parametrize(
    ("where", "moved", "nodes"), [("none", (), 0), ("norms", ("a", "f"), 0), ("all", ("a", "c", "f"), 1)]
)
def test_migration_changes_no_result(where: str, moved: tuple[str, ...], nodes: int) -> None:
    model = _tower(200.0)
    assert migrate_outliers(model, _peaks(model), where=where) == moved
    onnx.checker.check_model(model)
    assert len(model.graph.node) == len(_tower().graph.node) + nodes
    assert _error(model, 200.0) < 1e-5


def test_a_norm_that_feeds_something_else_is_left_alone() -> None:
    model = _tower(200.0)
    model.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", WIDTH]))
    peaks = _peaks(_tower(200.0))
    assert migrate_outliers(model, peaks, where="norms") == ("f",)
    assert migrate_outliers(model, peaks) == ("a", "c", "f")
    assert np.allclose(run_graph(model, FRESH)[0], run_graph(_tower(200.0), FRESH)[0], atol=1e-4)


def test_outliers_that_break_plain_int8_are_survived(tmp_path: Path) -> None:
    """Dynamic and static scales alike fail without migration, and hold with it."""
    plain, migrated = _tower(200.0), _tower(200.0)
    migrate_outliers(migrated, _peaks(plain))
    found = {
        "dynamic": _error(quantise_dynamic(_tower(200.0)), 200.0),
        "static": _error(_static(plain, tmp_path), 200.0),
        "static migrated": _error(_static(migrated, tmp_path), 200.0),
    }
    made = quantise_tower(_tower(200.0), find_recipe("vision", "int8"), SAMPLES)
    found["ours"] = _error(made.model, 200.0)
    assert found["dynamic"] > 0.15 and found["static"] > 0.15, found
    assert found["static migrated"] < 0.03 and found["ours"] < 0.02, found
    assert made.report["migration"] == "all"
    assert made.report["errors"]["all"] < 0.2 * made.report["errors"]["none"]


def test_fixed_scales_come_from_samples_and_survive_outliers() -> None:
    recipe = find_recipe("vision", "int8_static")
    made = quantise_tower(_tower(200.0), recipe, SAMPLES)
    kinds = [node.op_type for node in made.model.graph.node]
    assert (kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")) == (2, 4)  # the projector is left out
    codes = {tensor.name: tensor.data_type for tensor in made.model.graph.initializer if tensor.name.endswith("_codes")}
    assert set(codes.values()) == {TensorProto.INT8} and set(codes) == {"fc1.weight_codes", "fc2.weight_codes"}
    assert "fc1.weight" not in {tensor.name for tensor in made.model.graph.initializer}
    assert _error(made.model, 200.0) < 0.03
    with pytest.raises(SettingError, match="takes its scales from pictures"):
        quantise_tower(_tower(), recipe)


def test_codes_reach_from_the_smallest_to_the_largest_value() -> None:
    """Zero has a code of its own, whatever the range."""
    for values in ([[-1.0, 3.0]], [[2.0, 5.0]], [[-4.0, -2.0]], [[0.0, 0.0]]):
        rows = np.array(values, np.float32)
        seen = Seen(np.abs(rows).max(0), rows.min(0), rows.max(0), Moments(1, np.square(rows).mean(0), None))
        step, zero = activation_scale(seen)
        codes = np.clip(np.rint(rows / step) + int(zero), 0, 255)
        assert np.abs((codes - int(zero)) * step - rows).max() <= 0.51 * step


def test_without_outliers_the_graph_gets_no_further_node() -> None:
    made = quantise_tower(_tower(), find_recipe("vision", "int8"), SAMPLES)
    assert made.report["migration"] in ("none", "norms")
    assert "Mul" not in {
        node.op_type for node in made.model.graph.node if node.name.endswith("_mul") and "c_" in node.name
    }
    assert _error(made.model, 1.0) < 0.02


def test_the_projector_of_an_int8_tower_is_stored_in_half_precision() -> None:
    made = quantise_tower(_tower(), find_recipe("vision", "int8")).model
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds["projector.weight_half"] == TensorProto.FLOAT16
    assert [node.op_type for node in made.graph.node].count("MatMulInteger") == 2


def _kept(name: str, *patterns: str) -> object:
    from dataclasses import replace

    return replace(find_recipe("vision", name), keep_float=(patterns,))


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_exceptions_stay_float(name: str) -> None:
    made = quantise_tower(_tower(), _kept(name, "*projector*"), SAMPLES).model
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds["projector.weight"] == TensorProto.FLOAT
    assert [node.name for node in made.graph.node if node.op_type == "MatMul"] == ["projector"]
    with pytest.raises(OverrideError, match="nothing in the tower has this name"):
        quantise_tower(_tower(), _kept(name, "elsewhere.*"), SAMPLES)


def test_int4_weights_are_chosen_with_the_samples() -> None:
    """Inputs of low rank, as real ones are: the choice of codes then matters."""
    random = np.random.default_rng(5)
    mix = random.normal(size=(8, WIDTH)).astype(np.float32)

    def correlated(seed: int) -> list[dict[str, np.ndarray]]:
        draw = np.random.default_rng(seed)
        noise = [0.1 * draw.normal(size=(80, WIDTH)) for _ in range(6)]
        return [{"x": (draw.normal(size=(80, 8)) @ mix + part).astype(np.float32)} for part in noise]

    exact = run_graph(_tower(), correlated(2))
    errors = []
    for samples in ((), correlated(1)):
        made = quantise_tower(_tower(), find_recipe("vision", "int4"), samples).model
        errors.append(relative_error(exact, run_graph(made, correlated(2))))
        bits = {
            node.name: {item.name: item.i for item in node.attribute}["bits"]
            for node in made.graph.node
            if node.op_type == "MatMulNBits"
        }
        assert sorted(bits.values()) == [4, 4, 8] and bits[next(name for name in bits if "projector" in name)] == 8
    assert errors[1] < 0.7 * errors[0], errors
