"""Calibration: what is read, what is measured, and that decoders quantised with it are nearer to the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_mllm.decoders.llama.decoder import LlamaDecoder
from edge_mllm.decoders.ort.decoder import OrtDecoder
from edge_mllm.decoders.protocol import Tokens
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import SettingError
from edge_mllm.session.files import open_bundle
from edge_mllm_export import ExportOptions, export_bundle, parse_override
from edge_mllm_export.calibrate.calibration import SHIPPED, CalibrationError, gather_moments, read_calibration
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.errors import DecoderBuildError, VerificationError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.gguf.header import read_entries
from edge_mllm_export.job import Job
from edge_mllm_export.options import choose_recipes
from edge_mllm_export.reference.reference import Reference
from edge_mllm_export.verify.agreement import kl_divergence
from edge_mllm_export.write.bundle import write_bundle
from edge_mllm_export.write.calibrated import calibrated
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.gguf.quantise import QuantiseOptions
from edge_mllm_export.write.onnx.decoder import EMBEDDINGS, GRAPH, write_decoder_onnx
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_quant.recipes.recipe import find_recipe
from edge_mllm_quant.weights.activations import Moments, gathering

IDS = np.random.default_rng(5).integers(10, 500, 48).astype(np.int64)


@pytest.fixture(scope="module")
def text_dir(tiny_smolvlm_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language model alone, with embeddings of low rank: trained models' inputs are correlated, random ones not."""
    import torch
    from safetensors.torch import load_file, save_file

    checkpoint = open_checkpoint(tiny_smolvlm_tied, id="tiny")
    directory = write_text_checkpoint(checkpoint, find_family(checkpoint), tmp_path_factory.mktemp("text"))
    tensors = load_file(directory / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    left, sizes, right = torch.linalg.svd(table.float(), full_matrices=False)
    sizes[24:] = 0
    tensors["model.embed_tokens.weight"] = (3 * left * sizes @ right).to(table.dtype)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def seen(text_dir: Path) -> tuple[Mapping[str, Moments], np.ndarray]:
    """Moments over random token ids, and the float model's logits on others."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(text_dir, dtype=torch.float32).eval()
    training = torch.from_numpy(np.random.default_rng(6).integers(10, 500, (6, 512)))
    with torch.inference_mode():
        with gathering(model, products_below=4096) as gatherer:
            model(training)
            moments = gatherer.moments()
        logits = model(torch.from_numpy(IDS)[None]).logits[0].numpy()
    return moments, logits


def test_the_shipped_set_is_small_and_whole() -> None:
    probes = read_calibration()
    assert len(probes) >= 32 and all(len(probe.pictures) == 1 and probe.prompt for probe in probes)
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 1_000_000


def test_questions_of_a_directory(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "c.webp"):
        Image.new("RGB", (20, 10), "white").save(tmp_path / name)
    assert next(probe.prompt for probe in read_calibration(tmp_path)) == "What does it say?"
    (tmp_path / "questions.txt").write_text("First?\n\nSecond?\nb.png\tOf b?\n")
    assert [probe.prompt for probe in read_calibration(tmp_path)] == ["Of b?", "First?", "Second?", "First?"]
    (tmp_path / "questions.txt").write_text("b.png\tOf b?\n")
    assert [probe.prompt for probe in read_calibration(tmp_path)] == ["Of b?"]
    (tmp_path / "questions.txt").write_text("z.png\tOf z?\n")
    with pytest.raises(CalibrationError, match=r"names 'z\.png', which is not there"):
        read_calibration(tmp_path)


def test_directories_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no such directory"):
        read_calibration(tmp_path / "none")
    with pytest.raises(CalibrationError, match="holds no picture"):
        read_calibration(tmp_path)


def test_visual_tokens_are_among_what_is_measured(tiny_smolvlm: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm, id="tiny")
    family = find_family(checkpoint)
    reference = Reference(checkpoint, family, resolve_task(checkpoint, family))
    probes = read_calibration()[:2]
    answers = [reference.answer(probe, new_tokens=32) for probe in probes]
    found = gather_moments(reference, probes)
    # The last token of an answer is never fed back.
    positions = sum(len(answer.inputs.ids) + len(answer.tokens) - 1 for answer in answers)
    assert {moments.rows for name, moments in found.items() if name != "lm_head"} == {positions}
    assert found["lm_head"].rows == sum(len(answer.tokens) for answer in answers)
    assert len(found) == 2 * 7 + 1 and "model.layers.1.mlp.down_proj" in found
    one = gather_moments(reference, probes, products=False, most=1)
    assert one["lm_head"].rows == len(answers[0].tokens) and one["lm_head"].products is None


@pytest.mark.parametrize("recipe", ["q4_0", "iq4_nl", "q4_k_m"])
def test_gguf_with_moments_is_nearer_and_of_the_same_size(
    recipe: str, text_dir: Path, seen: tuple[Mapping[str, Moments], np.ndarray], tiny_bundle: Path, tmp_path: Path
) -> None:
    moments, expected = seen
    spec = replace(open_bundle(tiny_bundle).spec.decoder, n_embd=256, head_dim=64)
    losses, sizes = [], []
    for name, options in (("plain", QuantiseOptions(threads=1)), ("seen", QuantiseOptions(threads=1, moments=moments))):
        path = tmp_path / f"{name}.gguf"
        write_decoder_gguf(text_dir, path, recipe, name="tiny", options=options)
        decoder = LlamaDecoder(path, spec, DecoderSettings(threads=1, n_ctx=64, kv_type="f32"))
        losses.append(kl_divergence(expected, decoder.prefill([Tokens(IDS)], all_logits=True)).mean())
        decoder.close()
        sizes.append(path.stat().st_size)
    assert losses[1] < 0.8 * losses[0]
    assert sizes[0] == sizes[1]


def test_onnx_with_moments_is_nearer(
    text_dir: Path, seen: tuple[Mapping[str, Moments], np.ndarray], tiny_bundle: Path, tmp_path: Path
) -> None:
    moments, expected = seen
    spec = replace(open_bundle(tiny_bundle).spec.decoder, n_embd=256, head_dim=64)
    losses, sizes = [], []
    for name, known in (("plain", {}), ("seen", moments)):
        out = tmp_path / name
        out.mkdir()
        sizes.append(write_decoder_onnx(text_dir, out, find_recipe("onnx"), moments=known).bytes)
        decoder = OrtDecoder(out / GRAPH, out / EMBEDDINGS, spec, DecoderSettings(threads=1, n_ctx=64))
        losses.append(kl_divergence(expected, decoder.prefill([Tokens(IDS)], all_logits=True)).mean())
        decoder.close()
    assert losses[1] < 0.8 * losses[0]
    assert abs(sizes[0] - sizes[1]) < 1000


def test_a_node_that_holds_other_weights_is_an_error(
    text_dir: Path, seen: tuple[Mapping[str, Moments], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_mllm_export.write.onnx import refine as onnx_refine

    read = onnx_refine._read_weights
    monkeypatch.setattr(onnx_refine, "_read_weights", lambda *args: read(*args)[::-1].copy())
    with pytest.raises(DecoderBuildError, match=r"does not hold model\.layers\.0\.self_attn\.q_proj"):
        write_decoder_onnx(text_dir, tmp_path, find_recipe("onnx"), moments=seen[0])


def test_export_with_own_pictures_and_exceptions(tiny_smolvlm: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "holiday"
    pictures.mkdir()
    Image.effect_noise((64, 40), 90).convert("RGB").save(pictures / "a.png")
    overrides = tuple(map(parse_override, ("head=q4_0", "blk.1.ffn_*=q8_0", "projector=fp32")))
    options = ExportOptions(format="gguf", calibrate=pictures, overrides=overrides, verify=False)
    spec = export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", options)
    recipe = spec.recipe["decoder_gguf"]
    assert recipe["calibration"]["pictures"] == "holiday" and recipe["calibration"]["positions"] > 30
    assert recipe["overrides"] == ["head=q4_0", "blk.1.ffn_*=q8_0"]
    assert spec.recipe["vision"]["overrides"] == ["projector=fp32"]
    types = {name: entry.dtype for name, entry in read_entries(tmp_path / "x.edge" / "decoder.gguf").items()}
    assert types["output.weight"] == types["blk.0.ffn_up.weight"] == "Q4_0" and types["blk.1.ffn_up.weight"] == "Q8_0"
    assert json.loads((tmp_path / "x.edge" / "bundle.json").read_text())["recipe"] == json.loads(
        json.dumps(spec.recipe)
    )


def test_real_weights_are_calibrated_unless_refused(
    tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages that ship, and nothing where there is nothing to round."""
    monkeypatch.setattr("edge_mllm_export.calibrate.calibration.MOST_POSITIONS", 200)
    steps: list[str] = []

    def exported(**fields: Any) -> dict[str, Any]:
        steps.clear()
        options = ExportOptions(format="gguf", verify=False, force=True, **fields)
        return export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", options, steps.append).recipe["decoder_gguf"]

    found = exported()["calibration"]
    assert found["pictures"] == "shipped" and 200 <= found["positions"] < 2000 and found["seconds"] > 0
    assert steps[1] == "calibrating with the pages that ship"
    assert [path.name for path in (tmp_path / "x.edge").iterdir() if "moments" in path.name] == []
    assert "calibration" not in exported(calibration=False) and not any("calibrat" in step for step in steps)
    assert "calibration" not in exported(quant="q8_0") and steps[1].startswith("calibrating")  # the int8 tower
    exported(quant="q8_0", vision="fp16")
    assert not any("calibrat" in step for step in steps)
    with pytest.raises(SettingError, match="leave one of them out"):
        exported(calibration=False, calibrate=tmp_path)


@pytest.mark.parametrize("asked", [{"calibration": True}, {"calibrate": Path("holiday")}])
def test_random_weights_are_never_calibrated(asked: dict[str, Any], tiny_smolvlm: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_smolvlm, id="shape:tiny", random_weights=True)
    family = find_family(checkpoint)
    options = ExportOptions(format="gguf", verify=False)
    job = Job(checkpoint, family, choose_recipes(options), tmp_path, tmp_path)
    task = resolve_task(checkpoint, family)
    assert calibrated(job, task, options, lambda _: None) is job
    with pytest.raises(SettingError, match="random weights cannot be calibrated: what they see means nothing"):
        export_bundle("shape:smolvlm-500m", tmp_path / "x.edge", replace(options, **asked))


def test_the_speed_of_a_cache_in_8_bits_can_be_asked_of_a_shape(tiny_smolvlm: Path, tmp_path: Path) -> None:
    """Random weights have no calibration, so that their scales are one; the decoder runs and keeps bytes."""
    source = open_checkpoint(tiny_smolvlm, id="shape:tiny", random_weights=True)
    options = ExportOptions(format="onnx", vision="fp32", kv="q8", verify=False)
    job = Job(source, find_family(source), choose_recipes(options), tmp_path, tmp_path, kv="q8")
    spec = write_bundle(job, "tiny")
    decoder = OrtDecoder(tmp_path / GRAPH, tmp_path / EMBEDDINGS, spec.decoder, DecoderSettings(threads=1))
    assert np.isfinite(decoder.prefill([Tokens(IDS)])).all() and np.isfinite(decoder.step(7)).all()
    config = json.loads((tiny_smolvlm / "config.json").read_text())["text_config"]
    values = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
    assert decoder.cell_bytes == values, "a byte each"


def test_too_little_memory_names_the_way_out(
    tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mllm_export.write.resources.available_bytes", lambda: 1000)
    with pytest.raises(VerificationError, match=r"calibration with pictures needs .* use `calibration=False`"):
        export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", ExportOptions(format="gguf", verify=False))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("blk.7.*=q8_0", r"blk.*7.*no tensor of the decoder"),
        ("tower.*=fp32", r"nothing in the tower .*there are .*fc1"),
    ],
)
def test_exceptions_that_match_nothing_are_refused(
    override: str, reason: str, tiny_smolvlm: Path, tmp_path: Path
) -> None:
    options = ExportOptions(format="gguf", overrides=(parse_override(override),), verify=False)
    with pytest.raises(SettingError, match=reason):
        export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", options)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_of_eight_bits(tiny_smolvlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the memory, nearly the same logits, also when the cache is cut back, grown and restored."""
    monkeypatch.setattr("edge_mllm_export.calibrate.calibration.MOST_POSITIONS", 400)
    options = ExportOptions(format="onnx", quant="f32", vision="fp32", verify=False, kv="q8")
    spec = export_bundle(str(tiny_smolvlm), tmp_path / "q8.edge", options)
    assert spec.recipe["decoder_onnx"]["cache"] == "int8"
    plain = export_bundle(str(tiny_smolvlm), tmp_path / "f32.edge", replace(options, kv=None))
    assert plain.recipe["decoder_onnx"]["cache"] == "float32"
    settings = DecoderSettings(threads=1, n_ctx=600)
    small, exact = (
        OrtDecoder(tmp_path / name / GRAPH, tmp_path / name / EMBEDDINGS, spec.decoder, settings)
        for name in ("q8.edge", "f32.edge")
    )
    assert 4 * small.cell_bytes == exact.cell_bytes
    expected = exact.prefill([Tokens(IDS)], all_logits=True)
    found = small.prefill([Tokens(IDS)], all_logits=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # a run reads its own rows before they are rounded
    small.truncate(20)
    again = small.prefill([Tokens(IDS[20:])], all_logits=True)
    assert 0 < kl_divergence(expected[20:], again).mean() < 0.03
    state = small.state()
    assert {array.dtype for array in state.arrays} == {np.dtype(np.int8)}
    small.reserve(500)
    after = small.step(11)
    small.restore(state)
    np.testing.assert_allclose(small.step(11), after, atol=1e-6)
    assert kl_divergence(exact.step(11)[None], after[None])[0] < 0.05


def test_a_small_cache_that_cannot_be_had_is_refused(tiny_smolvlm: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"llama\.cpp chooses when it runs"):
        export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", ExportOptions(format="gguf", kv="q8"))
    with pytest.raises(SettingError, match="`kv='q8'` needs calibration"):
        export_bundle(str(tiny_smolvlm), tmp_path / "x.edge", ExportOptions(format="onnx", kv="q8", calibration=False))
    assert list(tmp_path.iterdir()) == []
