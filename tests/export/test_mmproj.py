"""mmproj.gguf: llama.cpp's own converter writes the same, and libmtmd answers from it as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle.gguf_compare import convert_all, key_differences, metadata, tensor_differences, tensors
from oracle.libmtmd import MARKER, LibMtmd
from oracle.llama_cpp_source import needed_llama_cpp_source
from PIL import Image

from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.errors import RecipeError, TensorsError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.gguf.file import GgufError
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_export.write.vision.mmproj import write_mmproj

PROMPT = "<|im_start|>User:{}What is it?<end_of_utterance>\nAssistant:"
STARTER = Path(__file__).resolve().parents[2] / "starter"
SIZES = ((128, 128), (64, 128), (37, 100), (300, 500), (200, 31), (1, 1))
"""Height and width."""


def write(checkpoint_dir: Path, out: Path, precision: str) -> Path:
    checkpoint = open_checkpoint(checkpoint_dir)
    write_mmproj(checkpoint, find_family(checkpoint), out, precision)
    return out


@pytest.fixture(scope="module")
def source() -> Path:
    return needed_llama_cpp_source()


def test_the_files_are_the_converters(
    tiny_smolvlm: Path, tiny_smolvlm2: Path, tiny_smolvlm_tied: Path, source: Path, tmp_path: Path
) -> None:
    """Every tensor byte for byte and every key."""
    cases = [(model, kind) for model in (tiny_smolvlm, tiny_smolvlm_tied) for kind in ("f32", "f16", "q8_0")]
    cases.append((tiny_smolvlm2, "f16"))
    files = [tmp_path / f"{model.name}-{kind}.gguf" for model, kind in cases]
    jobs = [(case[0], file, ("--mmproj", "--outtype", case[1])) for case, file in zip(cases, files, strict=True)]
    convert_all(source, jobs)
    for (model, kind), theirs in zip(cases, files, strict=True):
        ours = write(model, tmp_path / "ours.gguf", kind)
        assert tensor_differences(ours, theirs) == []
        assert key_differences(ours, theirs) == {}
        assert len(tensors(theirs)) == 38 and metadata(theirs)["clip.projector_type"][1] == "idefics3"


@pytest.fixture(scope="module")
def loaded(tiny_smolvlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Decoder and tower in F32, in libmtmd."""
    out = tmp_path_factory.mktemp("mtmd")
    checkpoint = open_checkpoint(tiny_smolvlm)
    text = write_text_checkpoint(checkpoint, find_family(checkpoint), out / "text")
    write_decoder_gguf(text, out / "decoder.gguf", "f32", name="tiny")
    library = LibMtmd(out / "decoder.gguf", write(tiny_smolvlm, out / "mmproj.gguf", "f32"))
    yield library
    library.close()


@pytest.fixture(scope="module")
def reference(tiny_smolvlm: Path) -> tuple[Any, Any]:
    """The processor on its PIL backend and the model in torch."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer, Idefics3Processor

    images = AutoImageProcessor.from_pretrained(tiny_smolvlm, backend="pil")
    processor = Idefics3Processor(images, AutoTokenizer.from_pretrained(tiny_smolvlm), image_seq_len=4)
    return processor, AutoModelForImageTextToText.from_pretrained(tiny_smolvlm, dtype=torch.float32).eval()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def test_libmtmd_answers_as_torch(
    size: tuple[int, int], loaded: LibMtmd, reference: tuple[Any, Any], tiny_smolvlm: Path
) -> None:
    """Ids and number of visual tokens are equal.

    Logits are near where the picture needs no resizing: libmtmd resizes with its own code, and its tower uses an
    approximate GELU.
    """
    import torch

    processor, model = reference
    image_token = open_checkpoint(tiny_smolvlm).token_id("<image>")
    picture = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = loaded.evaluate(PROMPT.format(MARKER), picture, image_token=image_token)
    inputs = processor(text=PROMPT.format("<image>"), images=[Image.fromarray(picture)], return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    assert found.ids == ids
    assert found.image_tokens == ids.count(image_token) == len(found.embeddings)
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1].numpy()
    assert np.corrcoef(found.logits, logits)[0, 1] > 0.95
    if size == (128, 128):
        assert np.abs(found.logits - logits).max() < 0.05
    assert 1 <= len(found.answer) <= 8


def test_two_pictures_give_two_answers(loaded: LibMtmd, tiny_smolvlm: Path) -> None:
    image_token = open_checkpoint(tiny_smolvlm).token_id("<image>")
    pictures = [np.zeros((64, 64, 3), np.uint8), np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)]
    first, second = (loaded.evaluate(PROMPT.format(MARKER), p, image_token=image_token) for p in pictures)
    assert first.ids == second.ids and np.abs(first.logits - second.logits).max() > 0.5


def test_the_starter_answers_in_libmtmd(tmp_path: Path) -> None:
    """Both files as the export writes them: same ids as the processor, and the answer that torch gives."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer, Idefics3Processor

    if not (STARTER / "checkpoint" / "model.safetensors").is_file():
        pytest.skip("starter/checkpoint is not there")
    checkpoint = open_checkpoint(STARTER / "checkpoint")
    text = write_text_checkpoint(checkpoint, find_family(checkpoint), tmp_path / "text")
    write_decoder_gguf(text, tmp_path / "decoder.gguf", "f32", name="starter")
    write_mmproj(checkpoint, find_family(checkpoint), tmp_path / "mmproj.gguf", "f16")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    images = AutoImageProcessor.from_pretrained(checkpoint.path, backend="pil")
    tokens = checkpoint.processor_settings["image_seq_len"]
    processor = Idefics3Processor(images, tokenizer, image_seq_len=tokens, chat_template=checkpoint.chat_template)
    content = [{"type": "image"}, {"type": "text", "text": "What does it say?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    picture = Image.open(STARTER / "demo" / "label.png").convert("RGB")
    inputs = processor(text=prompt, images=[picture], return_tensors="pt")
    library = LibMtmd(tmp_path / "decoder.gguf", tmp_path / "mmproj.gguf")
    try:
        marked = prompt.replace("<image>", MARKER)
        found = library.evaluate(marked, np.asarray(picture), image_token=checkpoint.token_id("<image>"), count=12)
    finally:
        library.close()
    assert found.ids == inputs["input_ids"][0].tolist()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint.path, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1].numpy()
    # libmtmd resizes pictures with its own code, so the logits are near and not equal.
    assert np.corrcoef(found.logits, logits)[0, 1] > 0.97
    assert tokenizer.decode(found.answer)


def test_bad_requests_name_what_is_wrong(tiny_smolvlm: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm)
    family = find_family(checkpoint)
    out = tmp_path / "mmproj.gguf"
    with pytest.raises(RecipeError, match="q4_0"):
        write_mmproj(checkpoint, family, out, "q4_0")
    with pytest.raises(GgufError, match=f"no projector for {family.name}"):
        write_mmproj(checkpoint, replace(family, mmproj=None), out, "f16")
    name = "model.connector.modality_projection.proj.weight"
    fewer = {key: info for key, info in checkpoint.tensors.items() if key != name}
    with pytest.raises(TensorsError, match=f"missing: {name}"):
        write_mmproj(_with_tensors(checkpoint, fewer), family, out, "f16")
    assert not out.exists()


def _with_tensors(checkpoint: Checkpoint, tensors: Any) -> Checkpoint:
    return replace(checkpoint, tensors=tensors)
