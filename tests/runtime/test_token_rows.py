"""Token embeddings out of a GGUF file, against the gguf package's own reading of the same types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.llama.token_rows import TokenRows
from edge_mllm.errors import EngineError

gguf = pytest.importorskip("gguf")
IDS = np.array([0, 39, 7, 7])


def write(path: Path, kind: gguf.GGMLQuantizationType, *, name: str = "token_embd.weight") -> DecoderSpec:
    values = np.random.default_rng(0).normal(size=(40, 256)).astype(np.float32)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("first", np.ones(7, np.float32))
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return DecoderSpec(n_embd=256, n_vocab=40, n_layer=1, context_length=8)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0"])
def test_rows_of_every_type(tmp_path: Path, kind: str) -> None:
    spec = write(tmp_path / "m.gguf", gguf.GGMLQuantizationType[kind])
    table = next(each for each in gguf.GGUFReader(tmp_path / "m.gguf").tensors if each.name == "token_embd.weight")
    expected = gguf.quants.dequantize(table.data, table.tensor_type)[IDS]
    rows = TokenRows(tmp_path / "m.gguf", spec)
    found = rows(IDS)
    assert (found.dtype, found.shape) == (np.float32, (4, 256))
    np.testing.assert_array_equal(found, expected)
    rows.scale = np.float32(16)
    np.testing.assert_array_equal(rows(IDS), expected * 16)


def test_a_file_without_a_table_of_the_right_size(tmp_path: Path) -> None:
    spec = write(tmp_path / "other.gguf", gguf.GGMLQuantizationType.F16, name="blk.0.ffn_up.weight")
    with pytest.raises(EngineError, match="no table of 40 token embeddings"):
        TokenRows(tmp_path / "other.gguf", spec)
    write(tmp_path / "m.gguf", gguf.GGMLQuantizationType.F16)
    with pytest.raises(EngineError, match="no table of 41"):
        TokenRows(tmp_path / "m.gguf", DecoderSpec(n_embd=256, n_vocab=41, n_layer=1, context_length=8))


def test_a_type_that_ggml_no_longer_has(tmp_path: Path) -> None:
    spec = write(tmp_path / "m.gguf", gguf.GGMLQuantizationType.F32)
    data = (tmp_path / "m.gguf").read_bytes()
    place = data.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 16
    assert data[place : place + 4] == b"\0\0\0\0"
    for kind in (38, 4, 99):
        (tmp_path / "odd.gguf").write_bytes(data[:place] + bytes([kind, 0, 0, 0]) + data[place + 4 :])
        with pytest.raises(EngineError):
            TokenRows(tmp_path / "odd.gguf", spec)
