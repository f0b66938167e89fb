"""The libraries that run a tower: same embeddings, clear words where one is not there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from bundle_specs import N_EMBD, TINY, write_tower
from typer.testing import CliRunner

import edge_mllm
from edge_mllm.cli.main import app
from edge_mllm.cli.options.model import VisionEngineName
from edge_mllm.errors import BundleError, ExtraMissingError, PartMismatchError, SettingError
from edge_mllm.tower.cache import tower_digest
from edge_mllm.tower.engines import TowerEngine, open_tower
from edge_mllm.tower.placement import Placement
from edge_mllm.tower.tower import VisionTower

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture(scope="module")
def tower_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tower(tmp_path_factory.mktemp("tower") / "vision.onnx")


def _pixels() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(3, 3, 32, 32)).astype(np.float32)


def _encode(path: Path, engine: TowerEngine) -> np.ndarray:
    return (
        VisionTower(path, TINY.vision, N_EMBD, threads=1, place=Placement(engine=engine)).encode(_pixels()).embeddings
    )


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def find_others(name: str, package: str | None = None) -> Any:
        return None if name == "openvino" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_others)


@pytest.mark.usefixtures("without_openvino")
def test_a_missing_library_is_found_when_the_model_is_loaded(tower_file: Path) -> None:
    with pytest.raises(ExtraMissingError, match=r"pip install 'edge-mllm\[openvino\]'"):
        open_tower(tower_file, "openvino", 1)
    with pytest.raises(ExtraMissingError):
        edge_mllm.load(vision_engine="openvino-bf16")
    done = CliRunner().invoke(app, ["run", "--vision-engine", "openvino", "What is 2 + 2?"])
    assert done.exit_code == 1
    assert "openvino is not installed" in done.output


def test_unknown_engines_are_named(tower_file: Path) -> None:
    with pytest.raises(SettingError, match="ort, openvino, openvino-bf16"):
        open_tower(tower_file, "tflite", 1)  # type: ignore[arg-type]
    assert [each.value for each in VisionEngineName] == list(get_args(TowerEngine))


def test_layouts_without_a_choice_refuse_one(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(SettingError, match="are for bundles"):
        edge_mllm.load(path, vision_engine="openvino")


@needs_openvino
def test_openvino_gives_the_same_embeddings(tower_file: Path) -> None:
    exact = _encode(tower_file, "ort")
    np.testing.assert_allclose(_encode(tower_file, "openvino"), exact, rtol=0, atol=1e-5)
    try:
        rough = _encode(tower_file, "openvino-bf16")
    except SettingError as error:
        assert "no bfloat16" in str(error)
    else:
        assert 0 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()


@needs_openvino
def test_openvino_checks_the_tower(tower_file: Path, tmp_path: Path) -> None:
    with pytest.raises(PartMismatchError, match="do not belong together"):
        VisionTower(tower_file, TINY.vision, N_EMBD + 1, place=Placement(engine="openvino")).load()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(tower_file.read_bytes()[:100])
    with pytest.raises(BundleError, match="OpenVINO cannot load"):
        VisionTower(broken, TINY.vision, N_EMBD, place=Placement(engine="openvino")).load()


@needs_openvino
def test_openvino_reads_the_starter(caplog: pytest.LogCaptureFixture) -> None:
    """An int8 tower with ONNX Runtime's own operators. Embeddings of the engines never share a cache entry."""
    with edge_mllm.load(threads=1) as plain, edge_mllm.load(threads=1, vision_engine="openvino") as other:
        picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
        ours, theirs = plain.encode(picture), other.encode(picture)
        assert plain.spec is not None
        assert len({tower_digest(plain.spec, Placement(engine=engine)) for engine in get_args(TowerEngine)}) == 3
    cosines = (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    assert cosines.min() > 0.99
    assert "export with --vision int8_static or fp16" in caplog.text
