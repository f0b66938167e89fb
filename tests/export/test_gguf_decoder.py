"""decoder.gguf of the llama architecture: the same numbers as torch, the same file as llama.cpp's converter."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from family_makers import changed_copy, linked_copy
from oracle.gguf_compare import convert_all, key_differences, metadata, tensor_differences, tensors
from oracle.llama_cpp_source import needed_llama_cpp_source

from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.llama.decoder import LlamaDecoder
from edge_mllm.decoders.protocol import Tokens
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import EngineError
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import CheckpointError, RecipeError, TensorsError, UnsupportedArchitectureError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.gguf.header import read_entries
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.gguf.quantise import QuantiseOptions
from edge_mllm_export.write.text_model import write_text_checkpoint


def text_directory(checkpoint_dir: Path, out: Path) -> Path:
    checkpoint = open_checkpoint(checkpoint_dir)
    return write_text_checkpoint(checkpoint, find_family(checkpoint), out)


@pytest.fixture(scope="module")
def plain(tiny_smolvlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Float32, head of its own, columns that K-quants do not fit."""
    return text_directory(tiny_smolvlm, tmp_path_factory.mktemp("text") / "plain")


@pytest.fixture(scope="module")
def tied(tiny_smolvlm_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bfloat16, tied head, columns that are multiples of 256."""
    return text_directory(tiny_smolvlm_tied, tmp_path_factory.mktemp("text") / "tied")


@pytest.fixture(scope="module")
def source() -> Path:
    return needed_llama_cpp_source()


def reference_logits(directory: Path, ids: np.ndarray) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor(ids)[None]).logits[0].numpy()


def llama_logits(directory: Path, file: Path, ids: np.ndarray) -> np.ndarray:
    config = json.loads((directory / "config.json").read_text())
    spec = DecoderSpec(
        n_embd=config["hidden_size"],
        n_vocab=config["vocab_size"],
        n_layer=config["num_hidden_layers"],
        context_length=config["max_position_embeddings"],
    )
    decoder = LlamaDecoder(file, spec, DecoderSettings(threads=2, kv_type="f32", flash_attention=False))
    try:
        return decoder.prefill([Tokens(ids)], all_logits=True)
    finally:
        decoder.close()


def random_ids(directory: Path, count: int = 48) -> np.ndarray:
    size = json.loads((directory / "config.json").read_text())["vocab_size"]
    return np.random.default_rng(3).integers(0, size, count)


@pytest.mark.parametrize("which", ["plain", "tied"])
def test_f32_logits_are_torchs(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    directory = request.getfixturevalue(which)
    report = write_decoder_gguf(directory, tmp_path / "decoder.gguf", "f32", name="tiny")
    ids = random_ids(directory)
    expected = reference_logits(directory, ids)
    assert expected.std() > 1
    assert np.abs(llama_logits(directory, tmp_path / "decoder.gguf", ids) - expected).max() < 1e-4
    assert report.bits_per_weight == 32 and report.bytes == (tmp_path / "decoder.gguf").stat().st_size


def test_llama3_rotary_scaling_is_torchs(plain: Path, tmp_path: Path) -> None:
    rotary = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    scaled = changed_copy(plain, tmp_path / "scaled", "config.json", {"rope_parameters": rotary})
    write_decoder_gguf(scaled, tmp_path / "decoder.gguf", "f32", name="tiny")
    factors = np.frombuffer(tensors(tmp_path / "decoder.gguf")["rope_freqs.weight"][2], np.float32)
    assert factors.min() == 1 and factors.max() == 8 and len(set(factors)) > 2
    ids = random_ids(scaled)
    expected = reference_logits(scaled, ids)
    assert np.abs(expected - reference_logits(plain, ids)).max() > 0.1
    assert np.abs(llama_logits(scaled, tmp_path / "decoder.gguf", ids) - expected).max() < 1e-4


def test_the_files_are_the_converters(plain: Path, tied: Path, source: Path, tmp_path: Path) -> None:
    """Every tensor byte for byte and every key; ours says besides that no token is put around a text."""
    cases = [(directory, recipe) for directory in (plain, tied) for recipe in ("f32", "f16")]
    files = [tmp_path / f"{directory.name}-{recipe}.gguf" for directory, recipe in cases]
    jobs = [(case[0], file, ("--outtype", case[1])) for case, file in zip(cases, files, strict=True)]
    convert_all(source, jobs, pre="smollm")
    for (directory, recipe), theirs in zip(cases, files, strict=True):
        ours = tmp_path / "ours.gguf"
        write_decoder_gguf(directory, ours, recipe, name="tiny")
        assert tensor_differences(ours, theirs) == []
        assert key_differences(ours, theirs) == {
            "tokenizer.ggml.add_bos_token": ((7, False), None),
            "tokenizer.ggml.add_eos_token": ((7, False), None),
        }
        assert len(tensors(theirs)) > 15 and "tokenizer.chat_template" in metadata(theirs)


def test_four_bit_files(tied: Path, tmp_path: Path) -> None:
    """True bits per weight, and logits that are near the float ones."""
    ids = random_ids(tied)
    expected = reference_logits(tied, ids)
    for recipe, low, high in (("q8_0", 8.5, 8.6), ("q4_0", 4.5, 5.0), ("iq4_nl", 4.5, 5.0), ("q4_k_m", 4.5, 5.0)):
        report = write_decoder_gguf(tied, tmp_path / f"{recipe}.gguf", recipe, name="tiny")
        assert low < report.bits_per_weight < high, recipe
        assert report.fallbacks == () and (report.bits_per_weight <= 5) == (recipe != "q8_0")
        assert report.label == f"{recipe} ({report.bits_per_weight:.2f} bits per weight)"
        found = llama_logits(tied, tmp_path / f"{recipe}.gguf", ids)
        floor = 0.99 if recipe == "q8_0" else 0.75
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > floor, recipe
    assert not list(tmp_path.glob(".gguf-*")), "the float file it is made from is left behind"


def test_tensors_that_fall_back_are_named(plain: Path, tmp_path: Path) -> None:
    report = write_decoder_gguf(plain, tmp_path / "decoder.gguf", "q4_k_m", name="tiny")
    written = {name: entry.dtype for name, entry in read_entries(tmp_path / "decoder.gguf").items()}
    fallbacks = dict(report.fallbacks)
    assert set(fallbacks) == {name for name, dtype in written.items() if dtype != "F32"}
    assert fallbacks["blk.0.attn_q.weight"] == "q4_K -> q5_0" and written["blk.0.attn_q.weight"] == "Q5_0"
    assert fallbacks["output.weight"] == "q6_K -> q8_0" and written["output.weight"] == "Q8_0"
    assert report.bits_per_weight > 5


def test_options_reach_the_quantiser(tied: Path, tmp_path: Path) -> None:
    plain_file = tmp_path / "plain.gguf"
    write_decoder_gguf(tied, plain_file, "q4_0", name="tiny")
    header = read_entries(plain_file)
    assert header["token_embd.weight"].dtype == "Q6_K" and header["blk.0.ffn_down.weight"].dtype == "Q4_0"

    chosen = QuantiseOptions(head="Q4_0", tensors={r"blk\.0\.ffn_down": "q8_0"}, threads=1)
    report = write_decoder_gguf(tied, tmp_path / "chosen.gguf", "q4_0", name="tiny", options=chosen)
    header = read_entries(tmp_path / "chosen.gguf")
    assert header["token_embd.weight"].dtype == "Q4_0"
    assert header["blk.0.ffn_down.weight"].dtype == "Q8_0" and header["blk.1.ffn_down.weight"].dtype == "Q4_0"
    assert dict(report.types)["Q8_0"] == header["blk.0.ffn_down.weight"].weights

    columns = header["blk.1.ffn_up.weight"].shape[-1]
    weighting = {"blk.1.ffn_up.weight": np.geomspace(1e-3, 1e3, columns).astype(np.float32)}
    write_decoder_gguf(tied, tmp_path / "w.gguf", "q4_0", name="tiny", options=QuantiseOptions(imatrix=weighting))
    assert tensor_differences(plain_file, tmp_path / "w.gguf") == ["blk.1.ffn_up.weight"]


def test_a_wrong_importance_matrix_is_an_error_and_leaves_nothing(tied: Path, tmp_path: Path) -> None:
    options = QuantiseOptions(imatrix={"blk.1.ffn_up.weight": np.ones(7, np.float32)})
    with pytest.raises(EngineError, match=r"imatrix size 7 .* blk\.1\.ffn_up\.weight"):
        write_decoder_gguf(tied, tmp_path / "decoder.gguf", "q4_0", name="tiny", options=options)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_in_the_quantiser_is_an_error_and_leaves_nothing(
    tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_mllm_export.write.gguf import quantise as gguf_quantise

    worker = tmp_path / "worker.py"
    worker.write_text("import os, sys; print('GGML_ASSERT(x) failed', file=sys.stderr, flush=True); os.abort()")
    monkeypatch.setattr(gguf_quantise, "WORKER", worker)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(EngineError, match=r"GGML_ASSERT\(x\) failed"):
        write_decoder_gguf(tied, out / "decoder.gguf", "q4_0", name="tiny")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("recipe", ["f32", "q4_0"])
def test_a_full_disk_is_an_error_and_leaves_no_scratch(tied: Path, tmp_path: Path, recipe: str) -> None:
    """RLIMIT_FSIZE stands in for the full disk; it must hit the float file (f32) and the quantiser (q4_0)."""
    limit = 1_000_000 if recipe == "f32" else 2_700_000
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from edge_mllm_export.write.gguf.decoder import write_decoder_gguf\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {resource.RLIM_INFINITY}))\n"
        "try: write_decoder_gguf(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], name='t')\n"
        "except OSError as error: print(type(error).__name__, error); sys.exit(7)\n"
    )
    if recipe == "q4_0":  # the float file fits, so lower the limit for the child that quantises
        code = code.replace("try:", _LOWER_LIMIT_IN_CHILD + "try:")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tied), str(tmp_path / "decoder.gguf"), recipe],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 7, done.stderr
    assert "File too large" in done.stdout or "the disk is full" in done.stdout
    assert not list(tmp_path.glob(".gguf-*"))


_LOWER_LIMIT_IN_CHILD = (
    "import subprocess; run = subprocess.run\n"
    "def limited(*args, **kwargs):\n"
    "    lower = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    "    return run(*args, preexec_fn=lower, **kwargs)\n"
    "subprocess.run = limited\n"
)


def test_bad_requests_name_what_is_wrong(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "decoder.gguf"
    with pytest.raises(RecipeError, match="q4_k_m"):
        write_decoder_gguf(plain, out, "q3_nonsense", name="tiny")
    for change, error, word in (
        ({"model_type": "rwkv"}, UnsupportedArchitectureError, "rwkv"),
        ({"num_hidden_layers": 3}, TensorsError, r"missing: blk\.2\."),
        ({"num_hidden_layers": 1}, TensorsError, r"left over: model\.layers\.1\."),
        ({"vocab_size": 600}, TensorsError, r"wrong shape: token_embd\.weight"),
        ({"vocab_size": 9}, CheckpointError, "vocab_size is 9"),
        ({"rms_norm_eps": None}, CheckpointError, "rms_norm_eps"),
        ({"rope_parameters": {"rope_type": "odd", "rope_theta": 1.0}}, CheckpointError, "'odd'"),
    ):
        broken = changed_copy(plain, tmp_path / word.replace("\\", "").replace(" ", "_"), "config.json", change)
        with pytest.raises(error, match=word):
            write_decoder_gguf(broken, out, "f32", name="tiny")
        assert not out.exists()


def test_values_that_half_precision_cannot_hold_are_an_error(plain: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = linked_copy(plain, tmp_path / "broken")
    weights = load_file(plain / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    (broken / "model.safetensors").unlink()
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(ValueError, match=r"blk\.0\.ffn_up\.weight.*not finite in F16"):
        write_decoder_gguf(broken, tmp_path / "decoder.gguf", "f16", name="tiny")
