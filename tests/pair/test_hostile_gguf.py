"""Numbers in GGUF files with which llama.cpp ends the process are refused before it sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.gguf_places import set_number
from tiny_minicpm_v import make_tiny_minicpm_v
from tiny_minicpm_v_4_6 import make_tiny_minicpm_v_4_6

from edge_mllm.bundle.gguf_pair import read_pair
from edge_mllm.errors import BundleError
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_export.write.vision.mmproj import write_mmproj

MODEL = [
    ("llama.attention.layer_norm_rms_epsilon", -1.0),
    ("llama.attention.layer_norm_rms_epsilon", float("nan")),
    ("llama.rope.freq_base", float("inf")),
    ("llama.block_count", 1 << 16),
    ("token_embd.weight:axis 0", 0),
]
TOWER = [
    ("clip.vision.attention.head_count", 33),
    ("clip.vision.projector.scale_factor", 33),
    ("clip.vision.projector.scale_factor", 3),
    ("clip.vision.patch_size", 2),
    ("clip.vision.embedding_length", 2),
    ("clip.vision.embedding_length", 255),
    ("clip.vision.image_size", 2),
    ("clip.vision.patch_size", 0),
    ("clip.vision.attention.layer_norm_epsilon", float("nan")),
    ("clip.vision.projection_dim:type", 5),
    ("clip.vision.image_mean:elements", 5),
    ("v.blk.1.attn_v.weight:axis 0", 0),
    ("v.blk.1.attn_v.weight:axis 1", 31),
    ("v.blk.0.ffn_down.weight:axis 0", 8),
]

SLICES = [
    ("4.0", "clip.minicpmv_version:type", 4),
    ("4.0", "clip.minicpmv_query_num", 8),
    ("4.0", "clip.minicpmv_query_num", 0),
    ("4.0", "resampler.query:axis 0", 100),
    ("4.0", "resampler.kv.weight:axis 0", 32),
    ("4.0", "resampler.attn.out.weight:axis 1", 128),
    ("4.0", "resampler.ln_post.bias:axis 0", 128),
    ("4.0", "v.position_embd.weight:axis 1", 4899),
    ("4.6", "v.position_embd.weight:axis 1", 4899),
    ("4.6", "clip.vision.projector.scale_factor", 8),
    ("4.6", "v.vit_merger.ds_ffn_down.weight:axis 0", 4),
    ("4.6", "mm.input_norm.weight:axis 0", 48),
    ("4.6", "mm.down.bias:axis 0", 4),
]


@pytest.fixture(scope="module")
def files(tiny_smolvlm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    out = tmp_path_factory.mktemp("hostile-pair")
    checkpoint = open_checkpoint(tiny_smolvlm)
    text = write_text_checkpoint(checkpoint, find_family(checkpoint), out / "text")
    write_decoder_gguf(text, out / "model.gguf", "f16", name="tiny")
    write_mmproj(checkpoint, find_family(checkpoint), out / "mmproj.gguf", "f16")
    return out / "model.gguf", out / "mmproj.gguf"


def test_the_whole_ones_are_read(files: tuple[Path, Path]) -> None:
    assert read_pair(*files).decoder.n_layer == 2


@pytest.mark.parametrize(("name", "value"), [*MODEL, *TOWER], ids=str)
def test_what_would_end_the_process_is_refused(
    files: tuple[Path, Path], tmp_path: Path, name: str, value: float
) -> None:
    number = int((name, value) in TOWER)
    changed = list(files)
    changed[number] = tmp_path / files[number].name
    changed[number].write_bytes(set_number(files[number].read_bytes(), name, value))
    with pytest.raises(BundleError) as caught:
        read_pair(*changed)
    message = str(caught.value)
    assert files[number].name in message and ("its tensor" in message or "its metadata" in message)


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Of two models with slices of any shape."""
    out = tmp_path_factory.mktemp("hostile-towers")
    found = {}
    for name, make in (("4.0", make_tiny_minicpm_v), ("4.6", make_tiny_minicpm_v_4_6)):
        checkpoint = open_checkpoint(make(out / name, side=70, scale=448))
        write_mmproj(checkpoint, find_family(checkpoint), out / "mmproj.gguf", "f16")
        found[name] = (out / "mmproj.gguf").read_bytes()
    return found


@pytest.mark.parametrize(("tower", "name", "value"), SLICES, ids=str)
def test_resamplers_and_mergers(
    files: tuple[Path, Path], towers: dict[str, bytes], tmp_path: Path, tower: str, name: str, value: int
) -> None:
    changed = tmp_path / "mmproj.gguf"
    changed.write_bytes(towers[tower])
    assert read_pair(files[0], changed).before_picture == "<image_id>{picture}</image_id>"
    changed.write_bytes(set_number(towers[tower], name, value))
    with pytest.raises(BundleError, match=r"mmproj\.gguf.*its (tensor|metadata)"):
        read_pair(files[0], changed)
