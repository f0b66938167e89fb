"""Rockchip's compiler and simulator: towers are compiled, compared and refused; skipped without the toolkit."""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from npu.conftest import ROOT, STARTER

from edge_mllm.bundle.files import SPEC_FILE, read_bundle, write_spec
from edge_mllm.machine.npu import NpuError
from edge_mllm.tower.npu.process import NpuProcess
from edge_mllm.tower.placement import Placement
from edge_mllm.tower.tower import VisionTower
from edge_mllm_export.errors import NpuFidelityError, RknnToolkitError
from edge_mllm_export.job import Job
from edge_mllm_export.targets import Target
from edge_mllm_export.write.npu import rknn, toolkit
from edge_mllm_export.write.npu.tower import write_npu_towers

MADE = ROOT / "build" / "rknn" / "bin" / "python"
"""What ``make slow`` installs."""
GIVEN = os.environ.get(toolkit.VARIABLE) or (str(MADE) if MADE.exists() else None)
needs_toolkit = pytest.mark.skipif(GIVEN is None, reason="rknn-toolkit2 is not installed: make build/rknn")
pytestmark = pytest.mark.xdist_group("npu")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    from edge_mllm_export.calibrate.calibration import read_calibration
    from edge_mllm_export.families.registry import find_family
    from edge_mllm_export.source.source import resolve_source
    from edge_mllm_export.write.vision.tower import tower_samples

    work, out = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("rknn") / "starter.edge"
    shutil.copytree(STARTER, out)
    checkpoint = resolve_source(str(ROOT / "starter" / "checkpoint"), work, None)
    family = find_family(checkpoint)
    pictures = [picture for probe in read_calibration()[:24] for picture in probe.pictures]
    samples = tower_samples(checkpoint, family, pictures, most=24)
    return Job(checkpoint, family, {}, out, work, npu_samples=samples)


@pytest.fixture(autouse=True)
def given(monkeypatch: pytest.MonkeyPatch) -> None:
    if GIVEN is not None:
        monkeypatch.setenv(toolkit.VARIABLE, GIVEN)


@pytest.mark.slow
@needs_toolkit
def test_floats_are_the_towers_own_on_every_chip(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler leaves beside does not lie where the export was started."""
    import torch

    monkeypatch.chdir(tmp_path)
    target = Target("rknn", ("rk3588", "rk3576"), "fp16")
    said: list[str] = []
    (tower,) = write_npu_towers(job, target, said.append)
    assert tower.graph is None and tower.report["simulated_cosine"] >= 0.9999
    assert tower.report["left_to_cpu"] == {} and said.count("rknn rk3576: operators left to the board's CPU: none") == 1
    for context in tower.contexts:
        data = (job.staging / context.binary.file).read_bytes()
        assert data[:4] == b"RKNN" and context.architecture.encode() in data
        assert context.sdk == toolkit.find_toolkit().version and context.sdk.encode() in data
    write_spec(replace(read_bundle(job.staging).spec, npu=(tower,)), job.staging / SPEC_FILE)
    bundle = read_bundle(job.staging)
    place = rknn.simulated_place(bundle.spec, tower, job.work)
    opened = VisionTower.of(bundle, threads=1, place=Placement("rknn", npu=place))
    pixels = np.concatenate([feeds["pixels"] for feeds in job.npu_samples[:2]])
    found = opened.encode(pixels).embeddings
    opened.close()
    with torch.inference_mode():
        exact = job.family.build_tower(job.checkpoint)(torch.from_numpy(pixels)).numpy()
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(exact, axis=-1)
    assert ((found * exact).sum(-1) / norms).min() >= 0.999
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_toolkit
def test_eight_bits_are_kept_only_where_they_are_near(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("rknn", ("rk3588",), "int8")
    (tower,) = write_npu_towers(job, target, lambda _: None)
    assert tower.report["simulated_cosine"] >= 0.995 and tower.report["scales"] in {way.name for way in rknn.WAYS}
    monkeypatch.setattr(rknn, "WAYS", rknn.WAYS[:1])
    with pytest.raises(NpuFidelityError, match=r"rknn rk3588 in int8 has a mean cosine of 0\.9\d+ .* must be 0\.995"):
        write_npu_towers(job, target, lambda _: None)


@pytest.mark.slow
@needs_toolkit
def test_a_graph_that_the_compiler_cannot_read_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / rknn.GRAPH).write_bytes(b"no graph")
    shape = (1, 3, 8, 8)
    load = rknn.toolkit_load(toolkit.find_toolkit(), tmp_path, "rk3588", rknn.FLOATS, shape, shape)
    with pytest.raises(NpuError, match=r"refuses vision\.rknn\.onnx \(it cannot read the graph: ") as caught:
        NpuProcess(load)
    assert "\n" not in str(caught.value)


def test_operators_of_the_last_table_are_told_with_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that stay in 16 bits are found by compiling twice, so there may be two tables."""
    api = ModuleType("rknn.api")
    monkeypatch.setattr(api, "RKNN", None, raising=False)
    monkeypatch.setitem(sys.modules, "rknn", ModuleType("rknn"))
    monkeypatch.setitem(sys.modules, "rknn.api", api)
    backend = runpy.run_path(str(rknn._BACKEND))

    def table(*rows: tuple[str, str]) -> list[str]:
        ends = [("InputOperator", "CPU"), *rows, ("OutputOperator", "CPU")]
        head = ["D RKNN: [02:57:40.773] ID   OpType   DataType Target InputShape", "D RKNN: [02:57:40.773] -----"]
        begin = "D RKNN: [02:57:40.773]"
        return head + [f"{begin} {n}   {kind}   FLOAT16  {at}    (1,3,96,96)" for n, (kind, at) in enumerate(ends)]

    first, second = table(("Conv", "NPU"), ("Gather", "CPU")), table(("exNorm", "NPU"), ("Softmax", "CPU"))
    assert backend["operators_of"]([*first, "E RKNN: no", *second]) == [("exNorm", "NPU"), ("Softmax", "CPU")]
    assert backend["operators_of"](["I rknn building ..."]) == []


def test_a_python_without_the_toolkit_is_named(tmp_path: Path) -> None:
    with pytest.raises(RknnToolkitError, match=r"'/nowhere/python', which cannot be started \(No such file"):
        toolkit.find_toolkit(environment={toolkit.VARIABLE: "/nowhere/python"})
    with pytest.raises(RknnToolkitError, match=r"which cannot import it \(.*rknn"):
        toolkit.find_toolkit(environment={toolkit.VARIABLE: sys.executable})


def test_an_environment_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(toolkit.sys, "executable", "/nowhere/python")
    said: list[str] = []
    with pytest.raises(RknnToolkitError, match="'/nowhere/python' cannot be started"):
        toolkit.find_toolkit(said.append, {})
    assert "installing rknn-toolkit2" in said[0] and not list((tmp_path / "cache").iterdir())
    failing = [shutil.which("sh") or "sh", "-c", "echo 'ERROR: No matching distribution' >&2; echo tip >&2; exit 1"]
    with pytest.raises(RknnToolkitError, match=r"could not be installed \(ERROR: No matching distribution\)"):
        toolkit._step(failing)
