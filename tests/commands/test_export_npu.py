"""``edge-mllm export --target``, end to end: the tower once more for an NPU, beside the one for CPUs."""

from __future__ import annotations

import importlib.util

import pytest
from commands.command_line import run_command
from commands.test_export import CHECKPOINT, LABEL, QUESTION, QUICK, answered, made, refused, shown
from npu.test_toolkit import GIVEN, needs_toolkit

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
    assert "no target 'tpu'; there are qnn-htp, rknn" in refused("--target", "tpu")
    assert "no Hexagon generation 'v99'; there are v68" in refused("--target", "qnn-htp:v73,v99")
    assert "no precision 'a4w4' for NPUs; there are a16w8" in refused("--target", "qnn-htp", "--npu-precision", "a4w4")
    assert "no Rockchip chip 'rk3566'; there are rk3588" in refused("--target", "rknn:rk3566")
    assert "--target rknn needs a chip" in refused("--target", "rknn")
    assert "--target names rknn twice" in refused("--target", "rknn:rk3588", "--target", "rknn:rk3576")
    assert "--npu-precision is for the tower of an NPU" in refused("--npu-precision", "fp16")


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime_qnn") is not None, reason="onnxruntime-qnn is installed")
def test_a_missing_compiler_is_said_before_anything_is_written():
    assert "pip install 'edge-mllm[npu]'" in refused(*QUICK, "--target", "qnn-htp")


def test_rockchips_compiler_is_looked_for_before_anything_is_written(monkeypatch):
    monkeypatch.setenv("EDGE_MLLM_RKNN_PYTHON", "/nowhere/python")
    said = refused(*QUICK, "--target", "rknn:rk3588")
    assert "rknn-toolkit2 cannot be used" in said and "'/nowhere/python', which cannot be started" in said


@pytest.mark.slow
@needs_compiler
@needs_toolkit
def test_one_bundle_has_towers_for_both_vendors_and_the_cpus_unchanged(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_MLLM_RKNN_PYTHON", str(GIVEN))
    plain, out = tmp_path / "plain.edge", tmp_path / "both.edge"
    made(CHECKPOINT, plain, "--format", "onnx", "--no-calibration", "--no-verify")
    targets = ("--target", "qnn-htp:v75", "--target", "rknn:rk3588,rk3576", "--npu-precision", "fp16")
    made(CHECKPOINT, out, "--format", "onnx", "--no-calibration", *targets)
    found = shown(out)
    assert [(each["target"], len(each["contexts"])) for each in found["npu"]] == [("qnn-htp", 1), ("rknn", 2)]
    compared = found["verification"]["npu"]
    assert [each["device"] for each in compared] == ["Hexagon v75 (simulated)", "RK3588 (simulated)"]
    assert min(each["cosine_mean"] for each in compared) >= 0.999
    assert found["parts"]["vision"]["sha256"] == shown(plain)["parts"]["vision"]["sha256"]
    answers = [answered(each, "--provider", "cpu")["text"] for each in (plain, out)]
    assert answers[0] == answers[1]
    refusal = run_command("run", "-m", out, "-i", LABEL, QUESTION, "--provider", "rknn")
    assert refusal.code == 1 and "this machine has no Rockchip NPU" in refusal.errors[-1]
    assert "rknn-toolkit2 2.5.0" in run_command("inspect", out).stdout
