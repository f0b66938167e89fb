"""Every architecture of language models: torch's logits, and llama.cpp's converter writes the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle.gguf_compare import convert, convert_all, key_differences, tensor_differences
from oracle.gguf_metadata import read_metadata
from oracle.llama_cpp_source import needed_llama_cpp_source
from tiny_text_models import CASES, COMMON, make

from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.llama.decoder import LlamaDecoder
from edge_mllm.decoders.protocol import Tokens, Visual
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import EngineError
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf

LENGTH = 60


def open_llama(file: Path, config: dict[str, Any], *, mrope: bool, scale: float = 1.0) -> LlamaDecoder:
    spec = DecoderSpec(
        n_embd=config["hidden_size"],
        n_vocab=config["vocab_size"],
        n_layer=config["num_hidden_layers"],
        context_length=256,
        positions="mrope" if mrope else "sequential",
        mrope_sections=(2, 3, 3) if mrope else (),
        embedding_scale=scale,
    )
    return LlamaDecoder(file, spec, DecoderSettings(threads=2, kv_type="f32", flash_attention=False))


def llama_logits(file: Path, config: dict[str, Any], ids: np.ndarray, *, mrope: bool) -> np.ndarray:
    decoder = open_llama(file, config, mrope=mrope)
    try:
        return decoder.prefill([Tokens(ids)], all_logits=True)
    finally:
        decoder.close()


@pytest.mark.parametrize("name", CASES)
def test_f32_logits_are_torchs(name: str, tiny_smolvlm: Path, tmp_path: Path) -> None:
    import torch

    case = CASES[name]
    model = make(case, tmp_path / "model", tiny_smolvlm)
    report = write_decoder_gguf(tmp_path / "model", tmp_path / "decoder.gguf", "f32", name=name)
    ids = np.random.default_rng(0).integers(0, COMMON["vocab_size"], LENGTH)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(ids)[None]).logits[0].numpy()
    found = llama_logits(tmp_path / "decoder.gguf", {**COMMON, **case.fields}, ids, mrope=case.mrope)
    assert expected.std() > 1
    assert np.abs(found - expected).max() < case.tolerance
    assert report.bits_per_weight == 32


@pytest.mark.parametrize("quant", ["f16", "q4_0"])
@pytest.mark.parametrize("name", ["llama-linear", "qwen2-tied", "qwen3", "phi3", "gemma", "gemma3", "qwen2-vl"])
def test_rows_of_embeddings_stand_for_tokens(name: str, quant: str, tiny_smolvlm: Path, tmp_path: Path) -> None:
    """The same batch as ids and as embeddings, bit for bit."""
    case = CASES[name]
    make(case, tmp_path / "model", tiny_smolvlm)
    write_decoder_gguf(tmp_path / "model", tmp_path / "decoder.gguf", quant, name=name)
    config = {**COMMON, **case.fields}
    ids = np.random.default_rng(0).integers(0, COMMON["vocab_size"], LENGTH)
    scale = COMMON["hidden_size"] ** 0.5 if name == "gemma3" else 1.0
    decoder = open_llama(tmp_path / "decoder.gguf", config, mrope=case.mrope, scale=scale)
    expected = decoder.prefill([Tokens(ids)], all_logits=True)
    decoder.truncate(0)
    first = Visual(decoder.embed(ids[:1]), grid=(1, 1))  # a picture of one token has a text token's positions
    found = decoder.prefill([first, Tokens(ids[1:])], all_logits=True)
    assert np.array_equal(found, expected)
    decoder.close()


def test_rows_that_do_not_stand_for_tokens_are_not_used(tiny_smolvlm: Path, tmp_path: Path) -> None:
    case = CASES["gemma3"]
    make(case, tmp_path / "model", tiny_smolvlm)
    write_decoder_gguf(tmp_path / "model", tmp_path / "decoder.gguf", "f32", name="gemma3")
    config = {**COMMON, **case.fields}
    ids = np.arange(40)
    seen = Visual(np.random.default_rng(1).normal(size=(9, COMMON["hidden_size"])).astype(np.float32))
    wrong = open_llama(tmp_path / "decoder.gguf", config, mrope=False, scale=7.0)
    with pytest.raises(EngineError, match="token ids only"):
        wrong.embed(ids)
    right = open_llama(tmp_path / "decoder.gguf", config, mrope=False, scale=8.0)
    found, expected = (each.prefill([Tokens(ids), seen, Tokens(ids)]) for each in (wrong, right))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(expected).max() > 1
    wrong.close()
    right.close()


def test_the_files_are_the_converters(tiny_smolvlm: Path, tmp_path: Path) -> None:
    """Every tensor byte for byte and every key, except that ours says what is put around a text."""
    source = needed_llama_cpp_source()
    names = [name for name, case in CASES.items() if case.oracle]
    for name in names:
        make(CASES[name], tmp_path / name, tiny_smolvlm)
    files = {name: tmp_path / f"{name}.gguf" for name in names}
    convert_all(source, [(tmp_path / name, files[name], ("--outtype", "f16")) for name in names], pre="smollm")
    known = {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"}
    known.add("phi2.rope.freq_base")  # theirs leaves it to llama.cpp's default, ours says what config.json says
    for name in names:
        write_decoder_gguf(tmp_path / name, tmp_path / "ours.gguf", "f16", name=name)
        assert tensor_differences(tmp_path / "ours.gguf", files[name]) == [], name
        assert set(key_differences(tmp_path / "ours.gguf", files[name])) <= known, name


def test_a_gemma_is_the_converters_but_for_the_vocabulary(tiny_smolvlm: Path, tmp_path: Path) -> None:
    """Which the converter reads with the sentencepiece package."""
    source = needed_llama_cpp_source()
    make(CASES["gemma"], tmp_path / "gemma", tiny_smolvlm)
    theirs = convert(source, tmp_path / "gemma", tmp_path / "theirs.gguf", "--outtype", "f16", vocabulary=False)
    write_decoder_gguf(tmp_path / "gemma", tmp_path / "ours.gguf", "f16", name="gemma")
    assert tensor_differences(tmp_path / "ours.gguf", theirs) == []
    different = {key for key in key_differences(tmp_path / "ours.gguf", theirs) if not key.startswith("tokenizer.")}
    assert different == {"gemma.rope.freq_base"}  # theirs leaves it to llama.cpp's default


@pytest.mark.parametrize(("field_name", "value"), [("tie_word_embeddings", False), ("hidden_act", "silu")])
def test_a_gemma_that_llama_cpp_would_compute_otherwise_is_refused(
    field_name: str, value: object, tiny_smolvlm: Path, tmp_path: Path
) -> None:
    make(CASES["gemma"], tmp_path / "model", tiny_smolvlm)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field_name: value}))
    with pytest.raises(CheckpointError, match=field_name):
        write_decoder_gguf(tmp_path / "model", tmp_path / "decoder.gguf", "f32", name="g")


def test_qwen2_vl_carries_its_sections(tiny_smolvlm: Path, tmp_path: Path) -> None:
    make(CASES["qwen2-vl"], tmp_path / "model", tiny_smolvlm)
    write_decoder_gguf(tmp_path / "model", tmp_path / "decoder.gguf", "f16", name="vl")
    found = read_metadata(tmp_path / "decoder.gguf")
    assert found["general.architecture"] == "qwen2vl"
    assert found["qwen2vl.rope.dimension_sections"] == [2, 3, 3, 0]


@pytest.mark.parametrize("field_name", ["attn_logit_softcapping", "query_pre_attn_scalar"])
def test_what_llama_cpp_does_not_compute_is_refused(field_name: str, tiny_smolvlm: Path, tmp_path: Path) -> None:
    make(CASES["gemma3"], tmp_path / "model", tiny_smolvlm)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field_name: 50}))
    with pytest.raises(CheckpointError, match=field_name):
        write_decoder_gguf(tmp_path / "model", tmp_path / "decoder.gguf", "f32", name="g")
