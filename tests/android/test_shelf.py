"""Bundles that are copied from a .zip or a folder appear whole, with all hashes compared, or leave nothing."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from android.conftest import ROOT, Core

STARTER = ROOT / "edge_mllm" / "starter.edge"


def _zipped(file: Path, folder: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for path in sorted(folder.iterdir()):
            out.write(path, inside + path.name)
    return file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STARTER, tmp_path / "source"))


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    place = tmp_path / "shelf"
    place.mkdir()
    return place


def _put(core: Core, source: Path, shelf: Path) -> dict[str, object]:
    return core.ask("put", **{"from": str(source), "into": str(shelf), "name": "chosen.edge"})


@pytest.mark.parametrize("kind", ["folder", "zip", "zip with a folder"])
def test_a_bundle_appears_whole(core: Core, source: Path, shelf: Path, kind: str) -> None:
    """Twice, the second in the place of the first, after a copy that was killed; no decoders that are not run here."""
    (shelf / "chosen.edge.tmp").mkdir()
    (shelf / "chosen.edge.tmp" / "half.onnx").write_bytes(b"x")
    given = source
    if kind != "folder":
        given = _zipped(source.parent / "a.zip", source, "starter.edge/" if kind == "zip with a folder" else "")
    for _ in range(2):
        assert _put(core, given, shelf) == {"place": str(shelf / "chosen.edge")}
    assert [path.name for path in shelf.iterdir()] == ["chosen.edge"]
    names = {path.name for path in (shelf / "chosen.edge").iterdir()}
    assert names == {path.name for path in STARTER.iterdir()} - {"decoder.gguf"}
    for name in names:
        assert (shelf / "chosen.edge" / name).read_bytes() == (STARTER / name).read_bytes()


def _flip(source: Path) -> None:
    data = bytearray((source / "vision.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (source / "vision.onnx").write_bytes(data)


@pytest.mark.parametrize("kind", ["flipped", "missing", "no bundle.json", "cut zip", "no zip", "outside"])
def test_what_is_not_whole_leaves_nothing_and_the_one_before_stays(
    core: Core, source: Path, shelf: Path, kind: str
) -> None:
    assert "place" in _put(core, STARTER, shelf)
    given, said = source, ""
    if kind == "flipped":
        _flip(source)
        said = "the file 'vision.onnx' has changed (its SHA-256 is another one)"
    elif kind == "missing":
        (source / "tokenizer.json").unlink()
        said = "the file 'tokenizer.json' is missing"
    elif kind == "no bundle.json":
        (source / "bundle.json").unlink()
        said = "there is no bundle.json"
    elif kind == "cut zip":
        given = _zipped(source.parent / "a.zip", source)
        given.write_bytes(given.read_bytes()[:3_000_000])
        said = "it cannot be copied"
    elif kind == "no zip":
        given = source.parent / "a.zip"
        given.write_bytes(b"hello" * 99)
        said = "there is no bundle.json"
    else:
        given = source.parent / "a.zip"
        with zipfile.ZipFile(given, "w") as out:
            for name in ("../../escaped", "..", "a/..", "x\\y", "/escaped"):
                out.writestr(name, "x")
        said = "there is no bundle.json"
    error = _put(core, given, shelf)["error"]
    assert said in str(error) and "\n" not in str(error)
    assert [path.name for path in shelf.iterdir()] == ["chosen.edge"]
    assert not [path for path in shelf.parent.rglob("escaped")]
    again = core.ask("run", bundle=str(shelf / "chosen.edge"), images=[], prompt="Hello", max_new_tokens=2)
    assert "text" in again
