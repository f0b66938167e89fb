"""Towers for Hexagon processors, compiled and run on the vendor's simulator: nothing here is a speed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from npu.conftest import ARCHITECTURES, NpuStarter, needs_compiler
from typer.testing import CliRunner

import edge_mllm
from edge_mllm.bundle.files import read_bundle
from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.cli.main import app
from edge_mllm.errors import EngineError
from edge_mllm.machine.npu import NpuError, qnn_library
from edge_mllm.tower.npu.process import NpuProcess
from edge_mllm.tower.npu.qnn import QnnGraph
from edge_mllm.tower.placement import Provider, place_tower
from edge_mllm.tower.tower import VisionTower

pytestmark = [needs_compiler, pytest.mark.xdist_group("npu")]
LABEL = Path(__file__).parents[2] / "starter" / "demo" / "label.png"
QUESTION = "What does it say?"


def tower_on(path: Path, provider: Provider) -> VisionTower:
    bundle = read_bundle(path)
    return VisionTower.of(bundle, threads=1, place=place_tower(bundle, provider))


def cosines(ours: np.ndarray, exact: np.ndarray) -> np.ndarray:
    return (ours * exact).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(exact, axis=-1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiled_towers_are_written_reloaded_and_run(npu_starter: NpuStarter, architecture: str) -> None:
    tower = tower_on(npu_starter.path, Provider("qnn", architecture))
    assert tower.place.npu is not None and tower.place.npu.compiled
    found = tower.encode(npu_starter.pixels[:2]).embeddings
    tower.close()
    assert cosines(found, npu_starter.exact[:2]).mean() >= 0.9995


def test_every_architecture_has_its_own_binary_and_nothing_is_left_to_the_cpu(npu_starter: NpuStarter) -> None:
    spec: BundleSpec = read_bundle(npu_starter.path).spec
    (tower,) = spec.npu
    assert [each.architecture for each in tower.contexts] == list(ARCHITECTURES)
    assert len({each.binary.sha256 for each in tower.contexts}) == len(ARCHITECTURES)
    assert {each.sdk for each in tower.contexts} == {qnn_library().sdk}
    assert tower.report["nodes_on_cpu"] == {}


def test_an_answer_names_provider_and_device(npu_starter: NpuStarter, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ["run", "-m", str(npu_starter.path), "-i", str(LABEL), QUESTION, "--detail", "low", "--json", "--provider"]
    found = json.loads(CliRunner().invoke(app, [*ask, "qnn:v75"]).stdout)
    assert found["devices"]["vision"] == {"provider": "qnn", "device": "Hexagon v75 (simulated)"}
    assert found["devices"]["decode"]["device"] == "CPU"
    assert found["text"] == json.loads(CliRunner().invoke(app, [*ask, "cpu"]).stdout)["text"]
    monkeypatch.setenv("EDGE_MLLM_HTP_SIMULATOR", "v79")
    shown = CliRunner().invoke(app, ["run", "-m", str(npu_starter.path), "-i", str(LABEL), QUESTION, "--detail", "low"])
    assert "on Hexagon v79 (simulated)" in shown.stderr and "placement" not in shown.stderr


def test_auto_is_the_cpu_where_there_is_only_a_simulator(npu_starter: NpuStarter) -> None:
    shown = CliRunner().invoke(app, ["run", "-m", str(npu_starter.path), "-i", str(LABEL), QUESTION])
    assert "Coffee" in shown.stdout and "the tower runs on the CPU" in shown.stderr


def test_a_simulator_that_dies_is_an_error_and_the_next_picture_starts_another(npu_starter: NpuStarter) -> None:
    with edge_mllm.load(npu_starter.path, provider="qnn:v75", threads=1, cache_bytes=0) as model:
        model.load_tower()
        tower = model.pipeline.parts.tower
        os.kill(tower._session._process._child.pid, signal.SIGSEGV)  # type: ignore[attr-defined]
        with pytest.raises(EngineError, match="ended \\(SIGSEGV\\)"):
            model.generate(QUESTION, [LABEL], detail="low")
        assert model.generate(QUESTION, [LABEL], detail="low").images[0].source == "tower"


def test_the_simulator_takes_what_our_checks_refuse(npu_starter: NpuStarter, tmp_path: Path) -> None:
    """Why the checks are there: a binary for v73 runs as one for v75."""
    context = read_bundle(npu_starter.path).spec.npu[0].contexts[0]
    for part in (context.graph, context.binary):
        (tmp_path / part.file).write_bytes((npu_starter.path / part.file).read_bytes())
    process = NpuProcess(QnnGraph(file=tmp_path / context.graph.file, architecture="v75").through(qnn_library()))
    process.close()
    cut = tmp_path / context.binary.file
    cut.write_bytes(cut.read_bytes()[: context.binary.bytes // 2])
    with pytest.raises(NpuError, match=r"library refuses|ended"):
        NpuProcess(QnnGraph(file=tmp_path / context.graph.file, architecture="v75").through(qnn_library()))


def test_a_missing_backend_is_an_error_and_not_the_cpu(npu_starter: NpuStarter, tmp_path: Path) -> None:
    library = dataclasses.replace(qnn_library(), backend=tmp_path / "libQnnHtp.so")
    with pytest.raises(NpuError, match="refuses vision"):
        NpuProcess(QnnGraph(file=npu_starter.path / "vision.qnn-htp.onnx", architecture="v75").through(library))


def test_a_compiler_that_refuses_operators_names_them(npu_starter: NpuStarter, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save_model

    from edge_mllm_export.errors import NpuNodesError
    from edge_mllm_export.write.npu.qnn_compiler import compile_graph

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Shrink", ["x"], ["y"])], "odd", ports[:1], ports[1:])
    save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "odd.onnx"
    )
    with pytest.raises(NpuNodesError, match="1 Shrink would be left to the CPU"):
        compile_graph(qnn_library(), tmp_path / "odd.onnx", "v75", "a16w8", tmp_path / "odd.bin")
