"""A large file that did not change is read once; every change is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time

import pytest
from commands.command_line import STARTER

import edge_mllm
from edge_mllm.bundle import checked, files
from edge_mllm.errors import PartChangedError


@pytest.fixture
def reads(monkeypatch, tmp_path):
    """Names of the files that were read to the end, with every file counted as large and an own cache folder."""
    seen: list[str] = []
    real = checked.sha256_of
    monkeypatch.setattr(checked, "REMEMBERED_FROM", 0)
    monkeypatch.setattr(checked, "sha256_of", lambda file: seen.append(file.name) or real(file))
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    return seen


@pytest.fixture
def old(tmp_path):
    """A file that was written some time ago."""
    file = tmp_path / "weights.bin"
    file.write_bytes(b"weights" * 1000)
    _wait_for_the_clock(file)
    return file


def _wait_for_the_clock(*written):
    newest = max(file.stat().st_ctime_ns for file in written)
    time.sleep(max(0.0, (newest + checked._RACY_NS - time.time_ns()) / 1e9 + 0.01))


def test_it_is_read_once(reads, old):
    expected = hashlib.sha256(old.read_bytes()).hexdigest()
    assert [checked.remembered_sha256(old) for _ in range(3)] == [expected] * 3
    assert reads == ["weights.bin"]


def _overwrite(file):
    file.write_bytes(b"strange" * 1000)


def _overwrite_and_set_the_time_back(file):
    stat = file.stat()
    file.write_bytes(b"strange" * 1000)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _put_another_in_its_place(file):
    other, stat = file.with_name("other"), file.stat()
    other.write_bytes(b"strange" * 1000)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("change", [_overwrite, _overwrite_and_set_the_time_back, _put_another_in_its_place])
def test_every_change_is_noticed(reads, old, change):
    checked.remembered_sha256(old)
    change(old)
    assert checked.remembered_sha256(old) == hashlib.sha256(b"strange" * 1000).hexdigest()
    assert len(reads) == 2


def test_a_file_written_just_now_is_not_remembered(reads, tmp_path):
    file = tmp_path / "new.bin"
    file.write_bytes(b"new")
    checked.remembered_sha256(file)
    checked.remembered_sha256(file)
    assert len(reads) == 2 and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"identity": 1, "sha256": 2}', "\ud800"])
def test_a_damaged_memory_is_as_good_as_none(reads, old, tmp_path, text):
    expected = checked.remembered_sha256(old)
    (place,) = (tmp_path / "cache" / "checked").iterdir()
    place.write_text(text, errors="surrogatepass")
    assert checked.remembered_sha256(old) == expected and len(reads) == 2


def test_a_folder_that_cannot_be_written_changes_nothing(reads, old, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "file" / "cache"))
    assert checked.remembered_sha256(old) == hashlib.sha256(old.read_bytes()).hexdigest()


def test_a_bundle_is_read_once_and_found_changed(reads, tmp_path):
    place = tmp_path / "copy.edge"
    shutil.copytree(STARTER, place)
    _wait_for_the_clock(*place.iterdir())
    edge_mllm.load(place, engine="onnx").close()
    first = list(reads)
    edge_mllm.load(place, engine="onnx").close()
    assert {"vision.onnx", "tokenizer.json"} <= set(first) and reads == first
    files.read_bundle(place, check_hashes=True)
    vision = place / json.loads((place / "bundle.json").read_text())["parts"]["vision"]["file"]
    data = bytearray(vision.read_bytes())
    data[-9] ^= 1
    vision.write_bytes(data)
    with pytest.raises(PartChangedError):
        edge_mllm.load(place, engine="onnx")


def test_the_starter_leaves_the_cache_folder_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_MLLM_CACHE", str(tmp_path / "cache"))
    edge_mllm.load(engine="onnx").close()
    assert not (tmp_path / "cache").exists()
