"""Shards: their sizes, their index, and what a full disk leaves."""

from __future__ import annotations

import errno
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.checkpoint.shard_writer import ShardWriter
from edge_mllm_export.checkpoint.tensor_store import INDEX, SINGLE, read_inventory
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.write.text_model import write_text_checkpoint

TENSORS = {f"t{i}": torch.arange(i * 10, i * 10 + 100, dtype=torch.float32).reshape(10, 10) for i in range(7)}


def write(directory: Path, limit: int) -> None:
    with ShardWriter(directory, limit=limit) as writer:
        for name, tensor in TENSORS.items():
            writer.add(name, tensor)


def test_one_file_when_all_fits(tmp_path: Path) -> None:
    write(tmp_path, limit=1 << 20)
    assert [path.name for path in tmp_path.iterdir()] == [SINGLE]
    assert {name: tensor.tolist() for name, tensor in load_file(tmp_path / SINGLE).items()} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }


@pytest.mark.parametrize(("limit", "files"), [(800, 4), (1300, 3), (1, 7)])
def test_shards_with_an_index(tmp_path: Path, limit: int, files: int) -> None:
    write(tmp_path, limit=limit)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == files
    assert set(read_inventory(tmp_path, "idefics3")) == set(TENSORS)


def test_transposed_tensors_keep_their_values(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.add("t", TENSORS["t1"].T)
    assert torch.equal(load_file(tmp_path / SINGLE)["t"], TENSORS["t1"].T)


def test_an_error_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, limit=800) as writer:
        for name, tensor in TENSORS.items():
            writer.add(name, tensor)
        raise KeyboardInterrupt
    assert not (tmp_path / INDEX).exists()
    assert not (tmp_path / SINGLE).exists()


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files above 2,000 bytes cannot be written, as on a full disk."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, previous[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, previous)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_a_system_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large") as caught:
        write(tmp_path, limit=1 << 20)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_a_system_error_for_the_language_model_too(tiny_smolvlm: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm)
    with pytest.raises(OSError, match="File too large") as caught:
        write_text_checkpoint(checkpoint, find_family(checkpoint), tmp_path / "text")
    assert caught.value.errno == errno.EFBIG
    assert json.loads((tmp_path / "text" / "config.json").read_text())["vocab_size"]
