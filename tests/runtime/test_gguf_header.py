from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mllm.bundle.gguf_header import _NAMES, decode_bytes, read_tensors, stored_as
from edge_mllm.errors import BundleError

gguf = pytest.importorskip("gguf")


def write(path: Path, *, tied: bool, alignment: int = 32) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(alignment)
    writer.add_string("general.name", "tiny")
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "é"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 0.25])
    writer.add_bool("some.flag", True)
    writer.add_float32("some.float", 1.5)
    writer.add_tensor("token_embd.weight", np.ones((24, 64), np.float16))
    writer.add_tensor("blk.0.ffn_up.weight", np.ones((128, 64), np.float32))
    if not tied:
        writer.add_tensor("output.weight", np.ones((24, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("alignment", [32, 256])
def test_the_table_is_what_the_reference_reads(tmp_path: Path, alignment: int) -> None:
    file = write(tmp_path / "m.gguf", tied=False, alignment=alignment)
    ours = {t.name: (t.shape, t.bytes) for t in read_tensors(file)}
    theirs = {t.name: (tuple(map(int, t.shape)), int(t.n_bytes)) for t in gguf.GGUFReader(file).tensors}
    assert ours.keys() == theirs.keys()
    for name, (shape, size) in theirs.items():
        assert ours[name][0] == shape
        assert size <= ours[name][1] < size + alignment


@pytest.mark.parametrize("alignment", [32, 256])
def test_where_a_tensors_data_lie(tmp_path: Path, alignment: int) -> None:
    file = write(tmp_path / "m.gguf", tied=False, alignment=alignment)
    theirs = {t.name: (int(t.tensor_type), int(t.data_offset)) for t in gguf.GGUFReader(file).tensors}
    assert {t.name: (t.kind, t.offset) for t in read_tensors(file)} == theirs


def test_the_embedding_counts_only_as_a_head(tmp_path: Path) -> None:
    untied = decode_bytes(write(tmp_path / "untied.gguf", tied=False))
    tied = decode_bytes(write(tmp_path / "tied.gguf", tied=True))
    assert untied == 4 * 64 * (128 + 24)
    assert tied == 4 * 64 * 128 + 2 * 64 * 24


def test_types_have_the_names_of_ggml(tmp_path: Path) -> None:
    known = {kind.value: kind.name for kind in gguf.GGMLQuantizationType}
    assert {number: name for number, name in enumerate(_NAMES) if name} == {
        number: name for number, name in known.items() if number < len(_NAMES)
    }
    text = stored_as(read_tensors(write(tmp_path / "tied.gguf", tied=True)))
    assert text == f"{(32 * 128 + 16 * 24) / (128 + 24):.2f} bits per weight: F32 84.2%, F16 15.8%"


@pytest.mark.parametrize("data", [b"", b"GGUF", b"PK\3\4" + b"\0" * 60, b"GGUF" + b"\xff" * 60])
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(BundleError):
        read_tensors(tmp_path / "m.gguf")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "m.gguf", tied=False)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(BundleError):
        read_tensors(file)
