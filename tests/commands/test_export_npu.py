"""``edge-mllm export --target``, end to end: the tower once more for an NPU, beside the one for CPUs."""

from __future__ import annotations

import importlib.util

import pytest
from commands.command_line import run_command
from commands.test_export import CHECKPOINT, QUICK, answered, made, refused, shown

pytestmark = pytest.mark.xdist_group("npu")
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None, reason="onnxruntime-qnn is not installed"
)


@needs_compiler
def test_a_float_tower_needs_no_calibration_and_the_cpu_still_answers(tmp_path):
    out = tmp_path / "npu.edge"
    made(CHECKPOINT, out, *QUICK, "--target", "qnn-htp:v75", "--npu-precision", "fp16")
    (tower,) = shown(out)["npu"]
    (context,) = tower["contexts"]
    assert (tower["precision"], context["architecture"], tower["report"]["nodes_on_cpu"]) == ("fp16", "v75", {})
    assert context["binary"]["file"] == "vision.qnn-htp-v75.bin"
    found = answered(out, "--provider", "qnn:v75", "--detail", "low")
    assert found["devices"]["vision"]["device"] == "Hexagon v75 (simulated)"
    assert answered(out, "--provider", "cpu", "--detail", "low")["text"] == found["text"]
    (out / context["binary"]["file"]).write_bytes(b"")
    assert "vision.qnn-htp-v75.bin" in run_command("inspect", out, "--check").errors[-1]


def test_targets_and_precisions_are_named():
    assert "no target 'tpu'; there are qnn-htp" in refused("--target", "tpu")
    assert "no Hexagon generation 'v99'; there are v68" in refused("--target", "qnn-htp:v73,v99")
    assert "no precision 'a4w4' for NPUs; there are a16w8" in refused("--target", "qnn-htp", "--npu-precision", "a4w4")
    assert "--npu-precision is for the tower of an NPU" in refused("--npu-precision", "fp16")


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime_qnn") is not None, reason="onnxruntime-qnn is installed")
def test_a_missing_compiler_is_said_before_anything_is_written():
    assert "pip install 'edge-mllm[npu]'" in refused(*QUICK, "--target", "qnn-htp")
