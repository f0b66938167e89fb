"""The SOURCE argument: what it may be, and one sentence for everything else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_mllm_export.errors import SourceError
from edge_mllm_export.source.source import resolve_source


def test_a_directory(tiny_smolvlm: Path, tmp_path: Path) -> None:
    checkpoint = resolve_source(str(tiny_smolvlm), tmp_path)
    assert (checkpoint.id, checkpoint.revision, checkpoint.path) == ("tiny-smolvlm", None, tiny_smolvlm)
    assert not any(tmp_path.iterdir())


def test_the_current_directory(tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_smolvlm)
    assert resolve_source(".", tmp_path).id == "tiny-smolvlm"


def test_a_directory_comes_before_a_hub_id(tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_smolvlm, tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert resolve_source("org/name", tmp_path).path == Path("org/name")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nothing", "no such directory, no hub id"),
        ("./nothing/at all", "no such directory, no hub id"),
        ("", "no checkpoint"),
        ("shape:nothing", "no such shape; there are: shape:smolvlm-256m, shape:smolvlm-500m, shape:smolvlm-2.2b"),
        ("org/name", "HF_HUB_OFFLINE forbids asking the hub"),
    ],
)
def test_what_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=words) as caught:
        resolve_source(source, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model-q4_0.gguf", "mmproj.gguf"], "GGUF files are already exported; 'edge-mllm run -m' opens"),
        (["bundle.json"], "it is a bundle already; 'edge-mllm run -m' opens it"),
        (["notes.txt"], "no config.json"),
        (["config.json", "quantize_config.json"], "already quantised .it has a quantize_config.json"),
    ],
)
def test_directories_that_hold_something_else(tmp_path: Path, names: list[str], words: str) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    for name in names:
        (directory / name).write_text("{}")
    with pytest.raises(SourceError, match=words):
        resolve_source(str(directory), tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.gguf", "'edge-mllm run -m' opens a decoder"),
        ("model.safetensors", "it is a file; give the checkpoint's"),
    ],
)
def test_files(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(SourceError, match=words):
        resolve_source(str(tmp_path / name), tmp_path)
