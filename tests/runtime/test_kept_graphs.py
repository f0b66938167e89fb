"""Graphs that are kept as ONNX Runtime arranges them: used while they fit, and never trusted when they do not."""

from __future__ import annotations

import shutil
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

import edge_mllm
from edge_mllm.errors import EngineError, SettingError
from edge_mllm.machine import kept_graphs
from edge_mllm.machine.cpu import CPUInfo
from edge_mllm.machine.kept_graphs import graphs_folder, keep_graph
from edge_mllm.machine.ort import open_session, session_options
from edge_mllm.session.keep_graphs import keep_graphs

STARTER = Path(edge_mllm.__file__).parent / "starter.edge"
LABEL = Path(__file__).parents[2] / "starter" / "demo" / "label.png"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the starter, and an empty folder for what is kept."""
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    shutil.copytree(STARTER, tmp_path / "starter.edge")
    return tmp_path / "starter.edge"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that sessions were opened from."""
    import onnxruntime

    files: list[Path] = []
    plain = onnxruntime.InferenceSession

    def noted(path: str, *arguments: object, **named: object) -> object:
        files.append(Path(path))
        return plain(path, *arguments, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    return files


def answered(bundle: Path) -> object:
    with edge_mllm.load(bundle, engine="onnx", threads=1, provider="cpu") as model:
        return model.generate("What does it say?", LABEL, max_new_tokens=6, logprobs=4).logprobs


def kept_files() -> list[Path]:
    return sorted(file for file in graphs_folder().rglob("graph.onnx"))


def test_answers_are_the_same_bit_for_bit(bundle: Path, opened: list[Path]) -> None:
    plain = answered(bundle)
    assert {file.parent for file in opened} == {bundle}
    told: list[str] = []
    sizes = keep_graphs(bundle, told.append)
    assert told == ["decoder.onnx", "vision.onnx"] and set(sizes) == set(told)
    assert all(size > (bundle / name).stat().st_size for name, size in sizes.items())
    opened.clear()
    assert answered(bundle) == plain
    assert sorted(opened) == kept_files() and len(opened) == 2


def test_keeping_again_makes_nothing_anew(bundle: Path, opened: list[Path]) -> None:
    first = keep_graphs(bundle)
    opened.clear()
    assert keep_graphs(bundle) == first and opened == []


def test_a_file_that_changed_is_opened_itself(bundle: Path, opened: list[Path]) -> None:
    graph = bundle / "vision.onnx"
    keep_graph(graph, partial(session_options, 1))
    (old,) = kept_files()
    graph.write_bytes(graph.read_bytes())
    opened.clear()
    open_session(graph, 1)
    assert opened == [graph]
    keep_graph(graph, partial(session_options, 1))
    assert old not in kept_files() and len(kept_files()) == 1


def test_another_processor_opens_the_file_itself(
    bundle: Path, opened: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = bundle / "vision.onnx"
    keep_graph(graph, partial(session_options, 1))
    monkeypatch.setattr(kept_graphs, "read_cpuinfo", lambda: CPUInfo("another", frozenset()))
    opened.clear()
    open_session(graph, 1)
    assert opened == [graph]


@pytest.mark.parametrize("how", ["cut", "without its weights", "other bytes"])
def test_what_was_damaged_is_not_used(bundle: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    plain = answered(bundle)
    keep_graphs(bundle)
    for file in kept_files():
        weights = file.with_name("graph.onnx.data")
        if how == "cut":
            weights.write_bytes(weights.read_bytes()[:-4096])
        elif how == "without its weights":
            weights.unlink()
        else:
            file.write_bytes(b"\xff" * file.stat().st_size)
    assert answered(bundle) == plain
    assert ("is not used" in caplog.text) == (how == "other bytes")


def test_without_room_nothing_is_written(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(kept_graphs.shutil, "disk_usage", lambda _: usage(1_000_000))
    with pytest.raises(EngineError, match=r"decoder\.onnx may take .* MB in .*, where 1 are free"):
        keep_graphs(bundle)
    assert kept_files() == []


def four_bits(path: Path, layers: int = 6) -> Path:
    """Products with 4-bit weights one after the other, of sizes that leave what follows unaligned."""
    draw, size, blocks = np.random.default_rng(0), 960, 960 // 64
    nodes, tensors = [], []
    for layer in range(layers):
        codes = draw.integers(0, 256, (size, blocks, 32)).astype(np.uint8)
        scales = draw.uniform(0.001, 0.01, (size, blocks)).astype(np.float32)
        tensors.insert(layer, from_array(codes, f"codes{layer}"))
        tensors.append(from_array(scales, f"scales{layer}"))
        names = [f"x{layer}", f"codes{layer}", f"scales{layer}"]
        settings = {"K": size, "N": size, "bits": 4, "block_size": 64, "accuracy_level": 4}
        nodes.append(helper.make_node("MatMulNBits", names, [f"x{layer + 1}"], domain="com.microsoft", **settings))
    ends = [helper.make_tensor_value_info(f"x{place}", TensorProto.FLOAT, [1, size]) for place in (0, layers)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_packed_weights_are_read_as_they_were_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime places them anywhere in the file, and its kernels look for the next aligned address in memory."""
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    graph = four_bits(tmp_path / "decoder.onnx")
    row = {"x0": np.random.default_rng(1).normal(size=(1, 960)).astype(np.float32)}
    (plain,) = open_session(graph, 1).run(None, row)
    keep_graph(graph, partial(session_options, 1))
    (kept,) = open_session(graph, 1).run(None, row)
    np.testing.assert_array_equal(kept, plain)
    assert kept_files()
    assert capfd.readouterr() == ("", ""), "a second try is nobody's business"


def test_weights_that_cannot_be_placed_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_graphs, "_LEAST_BYTES", (1024, 2048))
    monkeypatch.setattr(kept_graphs, "_ALIGNMENT", 1 << 40)
    with pytest.raises(EngineError, match="would not read its packed weights as it packed them"):
        keep_graph(four_bits(tmp_path / "decoder.onnx"), partial(session_options, 1))
    assert kept_files() == []


def test_a_graph_that_does_not_load_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cannot keep no\.onnx"):
        keep_graph(tmp_path / "no.onnx", partial(session_options, 1))
    assert not [file for file in graphs_folder().rglob("*") if file.is_file()]


def test_a_folder_that_cannot_be_written_to_is_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(EngineError, match=r"decoder\.onnx cannot be kept in"):
        keep_graphs(bundle)


def test_only_bundles(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(SettingError, match="is no bundle"):
        keep_graphs(tmp_path / "model.gguf")
