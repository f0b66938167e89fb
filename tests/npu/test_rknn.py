"""Towers on Rockchip's NPUs, with a library in the place of rknn-toolkit-lite2 that computes on the CPU."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from npu.conftest import STARTER

import edge_mllm
from edge_mllm.bundle.files import SPEC_FILE, OpenBundle, read_bundle, write_spec
from edge_mllm.bundle.spec import NpuContext, NpuTower, Part
from edge_mllm.bundle.spec_json import read_spec, spec_to_dict
from edge_mllm.errors import BundleError, EdgeMLLMError, EngineError, ExtraMissingError
from edge_mllm.machine.npu import Npu, NpuError, QnnLibrary
from edge_mllm.machine.rknn import RknnLibrary, rknn_library
from edge_mllm.tower.cache import tower_digest
from edge_mllm.tower.placement import Machine, Placement, Provider, place_tower, read_provider
from edge_mllm.tower.tower import VisionTower

LIBRARY = RknnLibrary("2.5.0", "2.5.0")
BOARD = Npu("rockchip", "RK3588", "rk3588")
PHONE = Npu("hexagon", "SM8650", "v75")
BINARY = "vision.rknn-rk3588.rknn"
LABEL = STARTER.parents[1] / "starter" / "demo" / "label.png"
LITE = '''
"""Takes files of JSON with the path of an ONNX graph, and pixels as the real library does: [1, height, width, 3]."""
import json, os, signal
import numpy as np
import onnxruntime
from edge_mllm.machine.ort import session_options

class RKNNLite:
    def __init__(self, verbose):
        self._said = None

    def load_rknn(self, path):
        print("I RKNN: what libraries print")
        with open(path) as stream:
            self._said = json.load(stream)
        return 0

    def init_runtime(self):
        return self._said.get("status", 0)

    def inference(self, inputs, data_type, data_format):
        if self._said.get("dies"):
            os.kill(os.getpid(), signal.SIGSEGV)
        (pixels,) = inputs
        assert (data_type, data_format, pixels.dtype) == ("float32", "nhwc", np.float32) and pixels.flags.c_contiguous
        session = onnxruntime.InferenceSession(self._said["graph"], session_options(1))
        return session.run(None, {"pixels": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))})
'''


def part(directory: Path, name: str, **said: object) -> Part:
    data = json.dumps({"graph": str(directory / "vision.onnx"), **said}).encode()
    (directory / name).write_bytes(data)
    return Part(file=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), precision="fp16")


def compiled(directory: Path, **said: object) -> tuple[NpuContext, ...]:
    return tuple(
        NpuContext(architecture=chip, sdk="2.5.0", binary=part(directory, f"vision.rknn-{chip}.rknn", **said))
        for chip in ("rk3588", "rk3576")
    )


def with_towers(directory: Path, *towers: NpuTower) -> OpenBundle:
    write_spec(replace(read_bundle(directory).spec, npu=towers), directory / SPEC_FILE)
    return read_bundle(directory)


def rknn_tower(directory: Path, **said: object) -> NpuTower:
    return NpuTower(target="rknn", precision="fp16", tiles=1, contexts=compiled(directory, **said))


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenBundle:
    """The starter with towers that the library above takes."""
    lite = tmp_path / "lite" / "rknnlite"
    lite.mkdir(parents=True)
    (lite / "__init__.py").touch()
    (lite / "api.py").write_text(LITE)
    monkeypatch.setenv("PYTHONPATH", str(lite.parent), prepend=":")
    out = tmp_path / "board.edge"
    shutil.copytree(STARTER, out)
    return with_towers(out, rknn_tower(out))


def machine(npu: Npu | None = BOARD, library: RknnLibrary | EdgeMLLMError = LIBRARY) -> Machine:
    def found() -> RknnLibrary:
        if isinstance(library, EdgeMLLMError):
            raise library
        return library

    qnn = QnnLibrary("2.7.0", "2.51.0", Path("provider.so"), Path("backend.so"))
    return Machine(lambda: () if npu is None else (npu,), lambda: qnn, found)


def on(bundle: OpenBundle, place: Placement) -> VisionTower:
    return VisionTower.of(bundle, threads=1, place=place)


def test_tiles_go_through_the_library_in_a_process_of_its_own(bundle: OpenBundle) -> None:
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, 3, 96, 96)).astype(np.float32)
    place = place_tower(bundle, Provider("rknn"), machine())
    assert (place.provider, place.device) == ("rknn", "RK3588")
    board, cpu = on(bundle, place), on(bundle, Placement())
    found = board.encode(pixels).embeddings
    board.close()
    np.testing.assert_allclose(found, cpu.encode(pixels).embeddings, rtol=0, atol=1e-5)
    assert tower_digest(bundle.spec, place) != tower_digest(bundle.spec)


def flip(bundle: OpenBundle) -> None:
    file = bundle.path / BINARY
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)


def cut(bundle: OpenBundle) -> None:
    file = bundle.path / BINARY
    file.write_bytes(file.read_bytes()[:-1])


def lose(bundle: OpenBundle) -> None:
    (bundle.path / BINARY).unlink()


WRONG = {
    "chip": (lambda _: None, machine(Npu("rockchip", "RK3568", "rk3568")), "has compiled towers for rk3588, rk3576"),
    "version": (lambda _: None, machine(library=RknnLibrary("2.3.2", "2.3.2")), "compiled by rknn-toolkit2 2.5.0"),
    "flipped byte": (flip, machine(), "its SHA-256 is another one"),
    "truncation": (cut, machine(), "bytes instead of"),
    "missing file": (lose, machine(), "is missing"),
    "missing library": (lambda _: None, machine(library=ExtraMissingError("rknn", "rknn-toolkit-lite2")), "mllm.rknn"),
    "missing runtime": (lambda _: None, machine(library=NpuError("librknnrt.so is not in /usr/lib")), "is not in"),
    "no NPU": (lambda _: None, machine(None), "NPU"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_and_auto_takes_the_cpu(bundle, case, caplog):
    harm, found, message = WRONG[case]
    harm(bundle)
    with pytest.raises((NpuError, BundleError, ExtraMissingError), match=message) as caught:
        place_tower(bundle, Provider("rknn"), found)
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        placed = place_tower(bundle, Provider("auto"), found)
    assert (placed.provider, placed.npu) == ("cpu", None)
    (record,) = caplog.records
    assert record.getMessage().startswith("the tower runs on the CPU: ") and "\n" not in record.getMessage()


@pytest.mark.parametrize(
    ("said", "message"), [({"status": -1}, "driver or librknnrt.so does not take it"), ({"dies": True}, "SIGSEGV")]
)
def test_a_library_that_refuses_or_dies_is_an_error_of_one_answer(bundle, said, message):
    harmed = with_towers(bundle.path, rknn_tower(bundle.path, **said))
    tower = on(harmed, place_tower(harmed, Provider("rknn"), machine()))
    with pytest.raises(EngineError, match=message):
        tower.encode(np.zeros((1, 3, 96, 96), np.float32))
    assert not tower.loaded


def test_an_absent_library_is_said_by_the_process_too(bundle, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    tower = on(bundle, place_tower(bundle, Provider("rknn"), machine()))
    with pytest.raises(NpuError, match="No module named 'rknnlite'"):
        tower.load()


def test_a_bundle_for_two_kinds_of_npus_runs_on_each_and_on_the_cpu(bundle, caplog):
    graph = part(bundle.path, "vision.qnn-htp.onnx")
    hexagon = NpuTower(target="qnn-htp", precision="a16w8", tiles=1, graph=graph)
    both = with_towers(bundle.path, hexagon, *bundle.spec.npu)
    assert read_spec(spec_to_dict(both.spec)) == both.spec
    assert len(both.spec.npu[1].files) == 2
    places = [place_tower(both, Provider("auto"), machine(npu)) for npu in (PHONE, BOARD)]
    assert [place.provider for place in places] == ["qnn", "rknn"]
    with pytest.raises(NpuError, match="this machine has no Rockchip NPU"):
        place_tower(both, Provider("rknn"), machine(PHONE))
    with edge_mllm.load(both.path, provider="cpu", threads=1) as model, edge_mllm.load(STARTER, threads=1) as plain:
        np.testing.assert_array_equal(model.encode(LABEL), plain.encode(LABEL))


def test_a_bundle_for_other_npus_alone_says_so(bundle, caplog):
    with pytest.raises(NpuError, match="has a tower for rknn alone; export it with `target='qnn-htp'`"):
        place_tower(bundle, Provider("qnn"), machine(PHONE))
    with caplog.at_level(logging.WARNING):
        assert place_tower(bundle, Provider("auto"), machine(PHONE)).npu is None
    assert "NPU is a Rockchip, and this machine has none" in caplog.text and "here is SM8650 v75" in caplog.text


def test_providers_name_chips():
    assert read_provider("rknn") == Provider("rknn")
    assert read_provider("rknn:rk3576") == Provider("rknn", "rk3576")
    with pytest.raises(NpuError, match="no Rockchip chip 'rk1'; there are rk3588, rk3576"):
        read_provider("rknn:rk1")


def test_another_chip_than_this_boards_is_refused(bundle):
    with pytest.raises(NpuError, match="this machine's NPU is RK3588, not rk3576"):
        place_tower(bundle, Provider("rknn", "rk3576"), machine())


def test_the_version_is_read_from_the_systems_library(tmp_path, monkeypatch):
    with pytest.raises(ExtraMissingError, match=r"edge-mllm\[rknn\]"):
        rknn_library(tmp_path, {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name, _package=None: SimpleNamespace())
    with pytest.raises(NpuError, match=r"librknnrt\.so is not in"):
        rknn_library(tmp_path, {})
    folder = tmp_path / "usr/lib"
    folder.mkdir(parents=True)
    (folder / "librknnrt.so").write_bytes(b"\x7fELF\0no version\0")
    with pytest.raises(NpuError, match="does not tell its version"):
        rknn_library(tmp_path, {})
    (folder / "librknnrt.so").write_bytes(b"\x7fELF\0librknnrt version: 2.5.0 (74ea630ce@2026-09-29T14:54:20)\0")
    assert rknn_library(tmp_path, {}).runtime == "2.5.0"
    other = tmp_path / "other.so"
    other.write_bytes(b"librknnrt version: 2.3.2 (429f97ae6b@2025-04-09T09:09:27)\0")
    assert rknn_library(tmp_path, {"LIBRKNNRT_PATH": str(other)}).runtime == "2.3.2"


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_older_operators_give_the_same(approximate):
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    from edge_mllm_quant.npu.older_operators import OPSET, with_older_operators

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 64]) for name in ("x", "y")]
    node = helper.make_node("Gelu", ["x"], ["y"], approximate=approximate)
    graph = helper.make_graph([node], "gelu", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    x = np.random.default_rng(0).normal(0, 3, (4, 64)).astype(np.float32)

    def run(given: onnx.ModelProto) -> np.ndarray:
        return onnxruntime.InferenceSession(given.SerializeToString()).run(None, {"x": x})[0]

    exact, older = run(model), with_older_operators(model)
    assert [(each.domain, each.version) for each in older.opset_import] == [("", OPSET)]
    np.testing.assert_allclose(run(older), exact, rtol=0, atol=1e-6)
    older.graph.node.append(helper.make_node("RMSNormalization", ["y", "y"], ["z"]))
    with pytest.raises(onnx.checker.ValidationError, match="RMSNormalization"):
        with_older_operators(older)
