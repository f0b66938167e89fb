"""Towers of every family with tiles of fixed size: taken by the compiler as a whole; any other is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_makers import MAKERS, make_tiny
from npu.conftest import needs_compiler

from edge_mllm.errors import SettingError
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.source.source import resolve_source

QUICK = {"internvl", "llava", "gemma3"}
ANY_SIZE = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "minicpm_v", "minicpm_v_4_6", "minicpm_v_4_7"}


def parametrized(quick: set[str], every: set[str]) -> list[Any]:
    """Some families in ``make test``, the others in ``make slow``."""
    return [*sorted(quick), *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(every - quick))]


FAMILIES = parametrized(QUICK, set(MAKERS) - ANY_SIZE)


@pytest.mark.parametrize("name", FAMILIES)
@needs_compiler
@pytest.mark.xdist_group("npu")
def test_the_whole_tower_is_taken(name: str, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    from edge_mllm.machine.npu import qnn_library
    from edge_mllm_export.write.npu.qnn_compiler import nodes_on_cpu
    from edge_mllm_export.write.vision.tower import trace_tower
    from edge_mllm_quant.npu.fixed_scales import fix_scales
    from edge_mllm_quant.npu.plain_graph import plain_graph

    checkpoint = resolve_source(str(make_tiny(name, tmp_path)), tmp_path, None)
    family = find_family(checkpoint)
    vision = family.vision(checkpoint)
    traced = trace_tower(family.build_tower(checkpoint), (vision.tile_height, vision.tile_width), "mha")
    onnx.save_model(traced, tmp_path / "traced.onnx")
    rng = np.random.default_rng(0)
    shape = (1, 3, vision.tile_height, vision.tile_width)
    samples = [{"pixels": rng.uniform(-1, 1, shape).astype(np.float32)} for _ in range(4)]
    plain = plain_graph(traced, 1)
    assert not [node for node in plain.graph.node if node.domain == "com.microsoft"]
    onnx.save_model(plain, tmp_path / "plain.onnx")
    onnx.save_model(fix_scales(plain, samples, activations=16), tmp_path / "fixed.onnx")
    exact, same, near = (
        onnxruntime.InferenceSession(str(tmp_path / f"{file}.onnx")).run(None, samples[0])[0]
        for file in ("traced", "plain", "fixed")
    )
    np.testing.assert_allclose(same, exact, rtol=0, atol=1e-4)
    norms = np.linalg.norm(exact, axis=-1) * np.linalg.norm(near, axis=-1)
    assert ((exact * near).sum(-1) / norms).mean() > 0.999
    assert nodes_on_cpu(qnn_library(), tmp_path / "fixed.onnx", "v75", half=False) == {}
    assert nodes_on_cpu(qnn_library(), tmp_path / "plain.onnx", "v75", half=True) == {}


@pytest.mark.parametrize("name", parametrized({"qwen2_vl"}, ANY_SIZE))
def test_towers_of_any_size_are_refused(name: str, tmp_path: Path) -> None:
    options = ExportOptions(format="gguf", calibration=False, verify=False, target="qnn-htp:v75")
    with pytest.raises(SettingError, match="of any size and the graph of an NPU has one: padding"):
        export_bundle(str(make_tiny(name, tmp_path)), tmp_path / "out.edge", options)
    assert not (tmp_path / "out.edge").exists()


def test_an_attention_with_a_mask_is_refused() -> None:
    from onnx import TensorProto, helper

    from edge_mllm_quant.npu.plain_graph import plain_graph

    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["tiles", 4, 8]) for name in ("q", "k", "v", "out")]
    mask = helper.make_tensor_value_info("mask", TensorProto.INT32, ["tiles", 4])
    node = helper.make_node(
        "MultiHeadAttention", ["q", "k", "v", "", "mask"], ["out"], domain="com.microsoft", num_heads=2, scale=1.0
    )
    graph = helper.make_graph([node], "masked", [*rows[:3], mask], rows[3:])
    with pytest.raises(SettingError, match="has a mask"):
        plain_graph(helper.make_model(graph), 1)
