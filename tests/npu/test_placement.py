"""Where a tower runs: what is used is what was checked, what was asked for by name never becomes something else."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from npu.conftest import STARTER

import edge_mllm
from edge_mllm.bundle.files import SPEC_FILE, OpenBundle, read_bundle, write_spec
from edge_mllm.bundle.spec import NpuContext, NpuTower, Part
from edge_mllm.bundle.spec_json import read_spec, spec_to_dict
from edge_mllm.errors import BundleError, EdgeMLLMError, ExtraMissingError, SettingError
from edge_mllm.machine.npu import Npu, NpuError, QnnLibrary, find_npus, qnn_library
from edge_mllm.tower.cache import tower_digest
from edge_mllm.tower.placement import Machine, Placement, Provider, fall_back, place_tower, read_provider

LIBRARY = QnnLibrary("2.7.0", "2.51.0", Path("provider.so"), Path("backend.so"))
PHONE = Npu("hexagon", "SM8650", "v75")
BINARY, GRAPH = "vision.qnn-htp-v75.bin", "vision.qnn-htp.onnx"


def part(directory: Path, name: str) -> Part:
    data = name.encode() * 100
    (directory / name).write_bytes(data)
    return Part(file=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), precision="a16w8")


@pytest.fixture
def bundle(tmp_path: Path) -> OpenBundle:
    """The starter with files in the place of compiled towers: nothing here runs them."""
    out = tmp_path / "phone.edge"
    shutil.copytree(STARTER, out)
    contexts = tuple(
        NpuContext(
            architecture=name,
            sdk="2.51.0",
            graph=part(out, f"vision.qnn-htp-{name}.onnx"),
            binary=part(out, f"vision.qnn-htp-{name}.bin"),
        )
        for name in ("v73", "v75")
    )
    tower = NpuTower(target="qnn-htp", precision="a16w8", tiles=1, graph=part(out, GRAPH), contexts=contexts)
    wide = replace(tower, tiles=4, graph=part(out, "vision.qnn-htp-x4.onnx"), contexts=())
    write_spec(replace(read_bundle(out).spec, npu=(tower, wide)), out / SPEC_FILE)
    return read_bundle(out)


def machine(npu: Npu | None = PHONE, library: QnnLibrary | EdgeMLLMError = LIBRARY) -> Machine:
    def found() -> QnnLibrary:
        if isinstance(library, EdgeMLLMError):
            raise library
        return library

    return Machine(lambda: () if npu is None else (npu,), found)


def flip(bundle: OpenBundle) -> Machine:
    file = bundle.path / BINARY
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    return machine()


def cut(bundle: OpenBundle) -> Machine:
    file = bundle.path / BINARY
    file.write_bytes(file.read_bytes()[:-1])
    return machine()


def lose(bundle: OpenBundle) -> Machine:
    (bundle.path / BINARY).unlink()
    return machine()


WRONG = {
    "architecture": (
        lambda _: machine(Npu("hexagon", "SM8750", "v79")),
        "has compiled towers for v73, v75, this NPU is",
    ),
    "flipped byte": (flip, "its SHA-256 is another one"),
    "truncation": (cut, "799 bytes instead of|bytes instead of"),
    "missing file": (lose, "is missing"),
    "SDK": (
        lambda _: machine(library=replace(LIBRARY, version="2.5.0", sdk="2.49.0")),
        "compiled by QNN 2.51.0, installed",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_compiled_tower_is_one_line_and_auto_takes_the_graph(bundle, case, caplog):
    make, message = WRONG[case]
    found = make(bundle)
    with pytest.raises((NpuError, BundleError), match=message) as caught:
        place_tower(bundle, Provider("qnn"), found)
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        placed = place_tower(bundle, Provider("auto"), found)
    assert placed.npu is not None and not placed.npu.compiled
    assert placed.npu.load.file.name == GRAPH and placed.provider == "qnn"
    (record,) = caplog.records
    assert "is compiled for" in record.getMessage() and str(caught.value) in record.getMessage()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (machine(None), "this machine has none"),
        (machine(library=ExtraMissingError("npu", "onnxruntime-qnn")), "onnxruntime-qnn is not installed"),
        (machine(library=NpuError("onnxruntime-qnn lacks its file libQnnHtp.so")), "lacks its file"),
    ],
)
def test_without_an_npu_or_its_library_auto_says_why_it_is_the_cpu(bundle, found, message, caplog):
    with caplog.at_level(logging.WARNING):
        placed = place_tower(bundle, Provider("auto"), found)
    assert (placed.provider, placed.npu, placed.device) == ("cpu", None, "CPU")
    (record,) = caplog.records
    assert record.getMessage().startswith("the tower runs on the CPU: ") and message in record.getMessage()


def test_a_missing_library_is_an_error_where_the_npu_was_asked_for(bundle):
    with pytest.raises(ExtraMissingError, match=r"edge-mllm\[npu\]"):
        place_tower(bundle, Provider("qnn"), machine(library=ExtraMissingError("npu", "onnxruntime-qnn")))
    with pytest.raises(NpuError, match="is SM8650 v75, not v79"):
        place_tower(bundle, Provider("qnn", "v79"), machine())
    with pytest.raises(NpuError, match="architecture of chip 9999"):
        place_tower(
            OpenBundle(bundle.path, replace(bundle.spec, npu=(replace(bundle.spec.npu[0], contexts=()),))),
            Provider("qnn"),
            machine(Npu("hexagon", "chip 9999", "")),
        )


def test_a_damaged_graph_leaves_the_cpu_alone(bundle, caplog):
    (bundle.path / GRAPH).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        placed = place_tower(bundle, Provider("auto"), flip(bundle))
    assert placed.npu is None
    (record,) = caplog.records
    assert BINARY in record.getMessage() and GRAPH in record.getMessage()
    with edge_mllm.load(bundle.path, provider="cpu", threads=1) as model:
        assert model.encode(STARTER.parents[1] / "starter" / "demo" / "label.png").shape[1] == 256


def test_the_right_tower_is_taken_and_its_embeddings_are_its_own(bundle):
    placed = place_tower(bundle, Provider("auto"), machine())
    assert placed.npu is not None and placed.npu.compiled and placed.npu.npu == PHONE
    assert placed.device == "SM8650 v75"
    wide = place_tower(bundle, Provider("qnn"), machine(), tiles=6)
    assert wide.npu is not None and wide.npu.tiles == 4 and not wide.npu.compiled
    other = place_tower(bundle, Provider("qnn"), machine(Npu("hexagon", "SM8550", "v73")))
    assert len({tower_digest(bundle.spec, place) for place in (placed, wide, other, Placement())}) == 4


def test_a_tower_that_cannot_be_loaded_falls_back_under_auto_alone(caplog):
    error = NpuError("the process that ran x on the NPU ended (SIGSEGV)")
    with caplog.at_level(logging.WARNING):
        assert fall_back(Placement("qnn", sure=False), error) == Placement(sure=False)
    assert "runs on the CPU: the process that ran x" in caplog.text
    with pytest.raises(NpuError):
        fall_back(Placement("qnn"), error)


def test_bundles_for_cpus_alone_say_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        assert place_tower(read_bundle(STARTER), Provider("auto"), machine()) == Placement()
        assert place_tower(read_bundle(STARTER), Provider("openvino")).engine == "openvino"
    assert not caplog.records
    with pytest.raises(NpuError, match="has no tower for an NPU"):
        place_tower(read_bundle(STARTER), Provider("qnn"), machine())


def test_providers_and_the_older_option_are_one_thing():
    assert read_provider(None) == Provider("auto")
    assert read_provider("qnn:v75") == Provider("qnn", "v75")
    assert read_provider(None, "ort") == Provider("cpu")
    assert read_provider("openvino", "openvino") == Provider("openvino")
    with pytest.raises(SettingError, match="contradict each other"):
        read_provider("cpu", "openvino")
    for wrong in ("gpu", "cpu:v75", "qnn:"):
        with pytest.raises(SettingError, match="no provider"):
            read_provider(wrong)
    with pytest.raises(NpuError, match="no Hexagon generation 'v99'; there are v68"):
        read_provider("qnn:v99")


def test_specifications_without_towers_for_npus_do_not_speak_of_them(bundle):
    plain = read_bundle(STARTER).spec
    assert "npu" not in spec_to_dict(plain)
    assert read_spec(spec_to_dict(bundle.spec)) == bundle.spec
    assert bundle.spec.bytes > plain.bytes


def test_paths_of_towers_stay_inside_the_bundle(bundle):
    outside = replace(bundle.spec.npu[0].graph, file="../x")
    with pytest.raises(BundleError, match="leaves the bundle"):
        bundle.checked(outside)


def device(root: Path, soc: str, driver: bool = True) -> Path:
    (root / "sys/devices/soc0").mkdir(parents=True)
    (root / "sys/devices/soc0/soc_id").write_text(soc + "\n")
    (root / "dev").mkdir()
    if driver:
        (root / "dev/fastrpc-cdsp").touch()
    return root


def test_devices_are_found_by_what_the_kernel_shows(tmp_path):
    assert find_npus(tmp_path, {}) == ()
    assert find_npus(device(tmp_path / "a", "557"), {}) == (PHONE,)
    assert find_npus(device(tmp_path / "b", "9999"), {})[0].architecture == ""
    assert find_npus(device(tmp_path / "c", "557", driver=False), {}) == ()
    tree = tmp_path / "d/proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    assert find_npus(tmp_path / "d", {}) == (Npu("rockchip", "RK3588", "rk3588"),)
    assert find_npus(tmp_path, {"EDGE_MLLM_HTP_SIMULATOR": "v73"})[0].label == "Hexagon v73 (simulated)"
    with pytest.raises(NpuError, match="no Hexagon generation"):
        find_npus(tmp_path, {"EDGE_MLLM_HTP_SIMULATOR": "73"})


def test_a_library_without_its_files_says_what_to_type(tmp_path, monkeypatch):
    files = {name: tmp_path / f"{name}.so" for name in ("provider", "backend")}
    built = SimpleNamespace(__version__="2.7.0", qnn_version="2.51.0")
    plugin = SimpleNamespace(
        build_and_package_info=built,
        get_library_path=lambda: str(files["provider"]),
        get_qnn_htp_path=lambda: str(files["backend"]),
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name, _package=None: plugin)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime_qnn", plugin)
    files["provider"].touch()
    with pytest.raises(NpuError, match=r"lacks its file backend\.so; type: pip install --force-reinstall"):
        qnn_library()
    files["backend"].touch()
    assert qnn_library().release == "2.51"
