"""Qwen2-VL to Qwen3.5 in llama.cpp's own files: its converter writes the same, and libmtmd runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from oracle.gguf_compare import convert_all, key_differences, metadata, tensor_differences
from oracle.libmtmd import MARKER, LibMtmd
from oracle.llama_cpp_source import needed_llama_cpp_source
from tiny_qwen2_vl import make_tiny_qwen2_5_vl, make_tiny_qwen2_vl
from tiny_qwen3_5 import make_tiny_qwen3_5
from tiny_qwen3_vl import make_tiny_qwen3_vl

from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.probes import draw_picture
from edge_mllm_export.reference.processor import load_processor
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_export.write.vision.mmproj import write_mmproj

MAKERS: dict[str, Callable[..., Path]] = {
    "qwen2vl_merger": make_tiny_qwen2_vl,
    "qwen2.5vl_merger": make_tiny_qwen2_5_vl,
    "qwen3vl_merger": make_tiny_qwen3_vl,
    "qwen3vl_merger of qwen3_5": make_tiny_qwen3_5,
}
"""Type of the projector -> maker."""
PRECISIONS = ("f32", "f16", "q8_0")
PROMPT = "<|im_start|>user\n{}What is it?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def source() -> Path:
    return needed_llama_cpp_source()


@pytest.fixture(scope="module", params=MAKERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(MAKERS[request.param](tmp_path_factory.mktemp("tiny") / request.param, depth=4))


@pytest.fixture(scope="module")
def decoder(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf")
    text = write_text_checkpoint(checkpoint, find_family(checkpoint), out / "text")
    write_decoder_gguf(text, out / "decoder.gguf", "f32", name="tiny")
    return out / "decoder.gguf"


def test_the_files_are_the_converters(checkpoint: Checkpoint, decoder: Path, source: Path, tmp_path: Path) -> None:
    """Tower and decoder, every tensor byte for byte and every key; ours also says what is put around a text."""
    family = find_family(checkpoint)
    theirs = {kind: tmp_path / f"{kind}.gguf" for kind in PRECISIONS}
    jobs = [(checkpoint.path, file, ("--mmproj", "--outtype", kind)) for kind, file in theirs.items()]
    text = tmp_path / "text.gguf"
    plain = ("--outtype", "f32", *(("--no-mtp",) if family.left_out else ()))
    pre = "qwen35" if family.left_out else "qwen2"
    convert_all(source, [*jobs, (checkpoint.path, text, plain)], pre=pre)
    for kind, file in theirs.items():
        ours = tmp_path / "ours.gguf"
        write_mmproj(checkpoint, family, ours, kind)
        assert tensor_differences(ours, file) == []
        assert key_differences(ours, file) == {}
        assert family.mmproj is not None
        assert metadata(file)["clip.projector_type"][1] == family.mmproj.projector_type
    assert tensor_differences(decoder, text) == []
    interval = "qwen35.full_attention_interval"  # the tiny model's layers have none; llama.cpp goes by their list
    known = {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", interval}
    assert set(key_differences(decoder, text)) <= known


def test_libmtmd_answers_as_torch(checkpoint: Checkpoint, decoder: Path, tmp_path: Path) -> None:
    """A picture that needs no resizing, with windows cut off at both edges."""
    import torch
    from transformers import AutoModelForImageTextToText

    family = find_family(checkpoint)
    write_mmproj(checkpoint, family, tmp_path / "mmproj.gguf", "f32")
    vision = family.vision(checkpoint)
    picture = draw_picture(vision.tile_width * 6, vision.tile_height * 5, seed=1)
    image_token = checkpoint.token_id("<|image_pad|>")
    library = LibMtmd(decoder, tmp_path / "mmproj.gguf")
    try:
        found = library.evaluate(PROMPT.format(MARKER), picture, image_token=image_token)
    finally:
        library.close()
    text = PROMPT.format("<|vision_start|><|image_pad|><|vision_end|>")
    inputs = load_processor(checkpoint, family).processor(text=text, images=[picture], return_tensors="pt")
    model = AutoModelForImageTextToText.from_pretrained(checkpoint.path, dtype=torch.float32).eval()
    with torch.inference_mode():
        features = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        further = [each[0] for each in getattr(features, "deepstack_features", ())]
        visual = torch.cat([features.pooler_output[0], *further], dim=-1).numpy()
        logits = model(**inputs).logits[0, -1].numpy()
    assert found.ids == inputs["input_ids"][0].tolist()
    assert found.image_tokens == 30
    assert np.corrcoef(found.embeddings.ravel(), visual.ravel())[0, 1] > 0.999
    assert np.corrcoef(found.logits, logits)[0, 1] > 0.99
