"""Graphs for the ONNX Runtime of phones: rotary positions by plain operators, and what is missing there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_mllm_export.write.onnx.phone import phone_gaps
from edge_mllm_export.write.onnx.plain_rotary import use_plain_rotary

_HEADS, _WIDTH, _SECTIONS = 2, 16, [2, 3, 3]


def _graph(**attributes: Any) -> onnx.ModelProto:
    """Two rotary embeddings that share their angles."""
    rng = np.random.default_rng(0)
    angles = [numpy_helper.from_array(rng.normal(size=(64, _WIDTH // 2)).astype(np.float32), n) for n in ("cos", "sin")]
    nodes = [
        helper.make_node(
            "MRotaryEmbedding",
            [name, "position_ids", "cos", "sin"],
            [f"{name}_out"],
            domain="com.microsoft",
            num_heads=_HEADS,
            mrope_section=_SECTIONS,
            **attributes,
        )
        for name in ("q", "k")
    ]
    shape = [1, "n", _HEADS * _WIDTH]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("q", "k")]
    inputs.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, [3, 1, "n"]))
    outputs = [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, shape) for name in ("q", "k")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, angles)
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray], folder: Path) -> list[np.ndarray]:
    import onnxruntime

    onnx.save(model, folder / "g.onnx")
    session = onnxruntime.InferenceSession(str(folder / "g.onnx"), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, feeds)
    return found


@pytest.mark.parametrize("layout", [0, 1], ids=["in turn", "interleaved"])
@pytest.mark.parametrize("count", [1, 7])
def test_plain_rotary_gives_the_same_bits(count: int, layout: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(count)
    feeds = {name: rng.normal(size=(1, count, _HEADS * _WIDTH)).astype(np.float32) for name in ("q", "k")}
    feeds["position_ids"] = rng.integers(0, 64, (3, 1, count))
    model = _graph(mrope_layout=layout)
    expected = _run(model, feeds, tmp_path)
    assert phone_gaps(model) == ("the operator MRotaryEmbedding",)
    use_plain_rotary(model)
    assert phone_gaps(model) == ()
    assert [node.op_type for node in model.graph.node].count("RotaryEmbedding") == 2
    assert [node.op_type for node in model.graph.node].count("Where") == 4  # shared by both
    for ours, theirs in zip(_run(model, feeds, tmp_path), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_gaps_name_what_is_missing() -> None:
    names = [f"i{place}" for place in range(15)]
    node = helper.make_node("GroupQueryAttention", names, ["o"], domain="com.microsoft", causal=0, num_heads=2)
    past = helper.make_tensor_value_info("past_key_values.0.key", TensorProto.INT8, [1, 2, "n", 8])
    graph = helper.make_graph([node], "g", [past], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 27)])
    assert phone_gaps(model) == (
        "opset 27",
        "inputs of GroupQueryAttention",
        "GroupQueryAttention with causal",
        "GroupQueryAttention over keys and values of 8 bits",
    )
