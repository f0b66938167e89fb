"""Published ONNX directories: opened without an export, they say what transformers says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_anyres import make_tiny_llava_onevision
from tiny_gemma3 import make_tiny_gemma3
from tiny_llava import make_tiny_llava
from tiny_published import WINDOWED_SIZE, make_published
from tiny_qwen2_vl import make_tiny_qwen2_5_vl, make_tiny_qwen2_vl
from typer.testing import CliRunner

import edge_mllm
from edge_mllm import GenerateOptions
from edge_mllm.bundle.published.files import choose_files
from edge_mllm.cli.main import app
from edge_mllm.errors import BundleError, EngineError, ModelNotFoundError, PartMismatchError, SettingError
from edge_mllm.session.files import open_directory
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.reference.probes import Probe, draw_picture
from edge_mllm_export.reference.reference import Reference

ROOT = Path(__file__).resolve().parents[2]
NEW_TOKENS = 16
SIZES = ((100, 80), (33, 90), (64, 64))


@pytest.fixture(scope="module")
def sources(tiny_smolvlm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("llava")
    return {
        "tiled": tiny_smolvlm,
        "cropped": make_tiny_llava(root / "clip"),
        "stretched": make_tiny_llava(root / "siglip", tower="siglip"),
        "stitched": make_tiny_llava_onevision(root / "stitched", seed=1),
        "any size": make_tiny_qwen2_vl(root / "any size"),
        "windows": make_tiny_qwen2_5_vl(root / "windows"),
    }


@pytest.fixture(scope="module")
def published(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    return {name: make_published(source, root / name) for name, source in sources.items() if name != "stretched"}


@pytest.fixture
def copy(published: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(published["tiled"], tmp_path / "copy"))


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_the_table_is_fresh() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "published_layouts.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["tiled", "cropped", "stretched", "stitched", "any size", "windows"])
def test_the_table_says_what_the_family_says(sources: dict[str, Path], name: str, tmp_path: Path) -> None:
    """Both read the same configuration files."""
    copy = Path(shutil.copytree(sources[name], tmp_path / "copy"))
    for stem in ("embed_tokens", "vision_encoder", "decoder_model_merged"):
        (copy / f"{stem}.onnx").write_bytes(b"")
    checkpoint = open_checkpoint(sources[name])
    family = find_family(checkpoint)
    opened = open_directory(copy)
    assert opened.spec.image == family.image(checkpoint)
    vision = family.vision(checkpoint)
    if vision.patches is not None:  # published encoders find their windows themselves
        vision = replace(vision, patches=replace(vision.patches, window=None))
    assert opened.spec.vision == vision
    assert opened.spec.prompt == family.prompt(checkpoint)
    decoder = family.decoder(checkpoint)
    assert opened.spec.decoder.head_dim in (None, decoder.head_dim)  # the graph says it where config.json does not
    assert replace(opened.spec.decoder, head_dim=decoder.head_dim) == decoder
    assert opened.chat_template() == checkpoint.chat_template


@pytest.mark.parametrize("name", ["tiled", "cropped", "stitched", "any size", "windows"])
def test_it_answers_as_transformers(published: dict[str, Path], sources: dict[str, Path], name: str) -> None:
    """Same ids, same visual embeddings and the same sixteen tokens, with one picture, with two and with none."""
    sizes = SIZES if name != "windows" else (WINDOWED_SIZE,) * 3
    pictures = [draw_picture(*size, seed=seed) for seed, size in enumerate(sizes)]
    probes = [Probe("What is it?", (picture,)) for picture in pictures]
    probes += [Probe("Compare.", (pictures[0], pictures[1])), Probe("Name a colour.", ())]
    checkpoint = open_checkpoint(sources[name])
    family = find_family(checkpoint)
    reference = Reference(checkpoint, family, resolve_task(checkpoint, family))
    with edge_mllm.load(published[name], threads=1) as model:
        for probe in probes:
            expected = reference.answer(probe, new_tokens=NEW_TOKENS)
            assert model.prompt_ids(probe.prompt, probe.pictures).tolist() == expected.inputs.ids.tolist()
            alone = len(probe.pictures) == 1 or model.spec.image.several is None
            if probe.pictures and alone:  # some pictures are tiled otherwise beside others
                ours = np.concatenate([model.encode(picture) for picture in probe.pictures])
                np.testing.assert_allclose(ours, expected.visual, atol=1e-4)
            pieces = list(model.stream(probe.prompt, probe.pictures, max_new_tokens=NEW_TOKENS))
            margins = np.diff(np.sort(expected.logits)[:, -2:])
            assert margins.min() > 1e-3, "the reference all but ties: another seed is needed"
            assert [piece.token for piece in pieces] == expected.tokens.tolist()


def test_a_chat_goes_on_where_it_was(published: dict[str, Path]) -> None:
    """The cache is cut back and continued; a saved chat goes on with the same token."""
    picture = draw_picture(100, 80, seed=0)
    request = GenerateOptions(max_new_tokens=6, ignore_eos=True)
    with edge_mllm.load(published["tiled"], threads=1) as model:
        chat = model.chat()
        chat.ask("What is it?", [picture], **request)
        second = chat.ask("And what colour?", **request)
        assert second.usage.reused_tokens > 0 and second.images[0].source == "kv"
        model.generate("Something else", max_new_tokens=2)
        again = model.chat()
        again.ask("What is it?", [picture], **request)
        assert again.ask("And what colour?", **request).text == second.text


def test_low_memory_and_saved_chats(published: dict[str, Path], tmp_path: Path) -> None:
    picture = draw_picture(64, 64, seed=3)
    request = GenerateOptions(max_new_tokens=4, ignore_eos=True)
    with edge_mllm.load(published["tiled"], threads=1, low_memory=True) as model:
        chat = model.chat()
        chat.ask("What is it?", [picture], **request)
        chat.save(tmp_path / "chat")
        expected = chat.ask("Why?", **request)
    with edge_mllm.load(published["tiled"], threads=1) as model:
        found = model.load_chat(tmp_path / "chat").ask("Why?", **request)
        assert found.text == expected.text and found.usage.reused_tokens > 0


def test_the_command_line(published: dict[str, Path], tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(draw_picture(100, 80, seed=0)).save(tmp_path / "a.png")
    command = ["run", "-m", str(published["tiled"]), "-i", str(tmp_path / "a.png"), "--max-new-tokens", "4", "--json"]
    done = CliRunner().invoke(app, [*command, "--threads", "1", "What is it?"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["engine"] == "onnx" and found["model"] == "tiled"
    assert found["usage"]["image_tokens"] == found["images"][0]["tokens"] > 0
    assert min(found["timings"][stage] for stage in ("vision_s", "prefill_s", "decode_s", "preprocess_s")) > 0
    shown = CliRunner().invoke(app, ["inspect", str(published["tiled"])])
    assert shown.exit_code == 0 and "onnx/decoder_model_merged.onnx" in shown.stdout and "fp32" in shown.stdout


def test_which_precision_is_taken(tmp_path: Path) -> None:
    names = ("embed_tokens", "embed_tokens_fp16", "vision_encoder", "vision_encoder_int8", "vision_encoder_q4")
    for name in (*names, "decoder_model_merged", "decoder_model_merged_q4", "decoder_model_merged_quantized"):
        (tmp_path / f"{name}.onnx").touch()

    def chosen(precision: str | None) -> list[str]:
        return [graph.precision for graph in choose_files(tmp_path, tmp_path, precision).values()]

    assert chosen(None) == ["fp16", "fp32", "q4"]
    assert chosen("decoder_model_merged=q8,vision_encoder=int8") == ["fp16", "int8", "q8"]
    assert chosen("fp32") == ["fp32", "fp32", "fp32"]
    assert chosen("fp32,vision_encoder=q4") == ["fp32", "q4", "fp32"]
    for precision, words in {
        "bnb4": "has no embed_tokens in bnb4; it has fp16, fp32",
        "q5": "'q5' is unknown; known: fp32, fp16",
        "decoder=q4": "no graph 'decoder'; known: embed_tokens",
    }.items():
        with pytest.raises(SettingError, match=words):
            choose_files(tmp_path, tmp_path, precision)


@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        ("config.json", {"architectures": ["Other"]}, r"config\.json names Other.*known are Idefics3"),
        ("config.json", {"scale_factor": 0}, r"config\.json, scale_factor: is 0, expected a whole number above 0"),
        ("config.json", {"text_config": {}}, r"config\.json, text_config\.hidden_size: is missing"),
        ("config.json", {"text_config": {"hidden_size": "64"}}, r"config\.json, text_config\.\w+: "),
        ("config.json", {"image_token_id": 3}, r"image_token_id: is 3, but <image> is 521 in tokenizer\.json"),
        ("preprocessor_config.json", {"do_resize": False}, r"preprocessor_config\.json, do_resize: is false"),
        ("preprocessor_config.json", {"resample": 9}, r"preprocessor_config\.json, resample: is 9"),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, r"its configuration, image\.std: 0\.0 is not above"),
        ("preprocessor_config.json", {"size": {}}, r"preprocessor_config\.json, size\.longest_edge: is missing"),
        ("preprocessor_config.json", {"image_mean": "x"}, r"preprocessor_config\.json.*mean: expected a list"),
        (
            "processor_config.json",
            {"image_token": "<pic>"},
            r"tokenizer\.json, added_tokens: the token <pic> is missing",
        ),
        ("chat_template.json", {"chat_template": ""}, "it has no chat template"),
    ],
)
def test_a_damaged_configuration_is_one_clear_error(copy: Path, file: str, fields: Any, words: str) -> None:
    change(copy / file, **fields)
    with pytest.raises(BundleError, match=words):
        open_directory(copy)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_a_file_that_is_no_json(copy: Path, file: str) -> None:
    (copy / file).write_text("[" * 100_000)
    with pytest.raises(BundleError, match=file):
        open_directory(copy)


def test_graphs_that_do_not_belong_together(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    for field, value, words in (
        ("num_hidden_layers", 3, r"has layers 2, config\.json says 3"),
        ("hidden_size", 96, r"has width 64, config\.json says 96"),
        ("vocab_size", 999, r"has vocabulary 523, config\.json says 999"),
    ):
        change(copy / "config.json", text_config=config["text_config"] | {field: value})
        with pytest.raises(PartMismatchError, match=words):
            edge_mllm.load(copy, threads=1)


def test_graphs_of_another_kind(copy: Path) -> None:
    onnx = copy / "onnx"
    shutil.copyfile(onnx / "embed_tokens.onnx", onnx / "vision_encoder.onnx")
    with (
        edge_mllm.load(copy, threads=1) as model,
        pytest.raises(EngineError, match="no vision encoder that can be run"),
    ):
        model.encode(draw_picture(30, 30, seed=0))
    shutil.copyfile(onnx / "embed_tokens.onnx", onnx / "decoder_model_merged.onnx")
    with pytest.raises(EngineError, match=r"is no decoder that can be run \(inputs: input_ids\)"):
        edge_mllm.load(copy, threads=1)
    (onnx / "embed_tokens.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cannot load embed_tokens\.onnx"):
        edge_mllm.load(copy, threads=1)


def test_what_is_no_published_directory(copy: Path, tiny_smolvlm: Path) -> None:
    with pytest.raises(EngineError, match="no engine 'gguf' here"):
        edge_mllm.load(copy, engine="gguf")
    with pytest.raises(SettingError, match="kv_type 'f16' cannot be chosen"):
        edge_mllm.load(copy, kv_type="f16", threads=1)
    with pytest.raises(SettingError, match="no precision to choose"):
        edge_mllm.load(precision="q4")
    with pytest.raises(
        ModelNotFoundError, match=r"it is a checkpoint; type: edge-mllm export .* -o tiny-smolvlm\.edge"
    ):
        edge_mllm.load(tiny_smolvlm)
    (copy / "onnx" / "vision_encoder.onnx").unlink()
    with pytest.raises(BundleError, match=r"there is no vision_encoder\*\.onnx"):
        edge_mllm.load(copy)


def _stored(directory: Path, **arrays: np.ndarray) -> None:
    """A safetensors file with tensors in the place of the checkpoint's."""
    from safetensors.numpy import save_file

    for file in directory.glob("*.safetensors"):
        file.unlink()
    save_file(arrays, directory / "model.safetensors")


def test_the_newline_comes_from_the_checkpoint(published: dict[str, Path], tmp_path: Path) -> None:
    """As bfloat16 too, which NumPy does not have; without it a picture of several tiles cannot be put together."""
    copy = Path(shutil.copytree(published["stitched"], tmp_path / "copy"))
    whole = open_directory(copy).newline
    assert whole is not None and whole.dtype == np.float32
    import torch
    from safetensors.torch import save_file

    for kind in (torch.bfloat16, torch.float16, torch.float32):
        values = torch.from_numpy(whole.copy()).to(kind)
        save_file({"image_newline": values}, copy / "model.safetensors")
        assert np.array_equal(open_directory(copy).newline, values.to(torch.float32).numpy())
    _stored(copy, other=np.zeros(3, np.float32))
    with pytest.raises(BundleError, match=r"it has no image_newline, which ends the rows of a picture"):
        open_directory(copy)
    _stored(copy, image_newline=np.zeros(3, np.float32))
    with pytest.raises(BundleError, match=r"model\.safetensors: image_newline is \[3\], expected \[64\]"):
        open_directory(copy)
    _stored(copy, image_newline=np.zeros(64, np.int32))
    with pytest.raises(BundleError, match=r"model\.safetensors: image_newline cannot be read"):
        open_directory(copy)
    for data in (b"", b"\xff" * 64, (2).to_bytes(8, "little") + b"[]"):
        (copy / "model.safetensors").write_bytes(data)
        with pytest.raises(BundleError, match="is no safetensors file"):
            open_directory(copy)


@pytest.mark.parametrize(
    ("file", "fields", "says"),
    [
        (
            "config.json",
            {"vision_aspect_ratio": "square"},
            "vision_aspect_ratio: is 'square', expected anyres",
        ),
        ("preprocessor_config.json", {"image_grid_pinpoints": [[32, 33]]}, "pinpoints: is .*whole tiles of 32 px"),
        ("preprocessor_config.json", {"image_grid_pinpoints": []}, "pinpoints: is .*expected .height, width. pairs"),
        ("preprocessor_config.json", {"image_mean": "x"}, "image_mean"),
        ("preprocessor_config.json", {"do_normalize": None}, "do_normalize: is false"),
        ("config.json", {"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy: is .default"),
    ],
)
def test_stitched_layouts_that_make_no_sense(
    published: dict[str, Path], tmp_path: Path, file: str, fields: dict[str, Any], says: str
) -> None:
    copy = Path(shutil.copytree(published["stitched"], tmp_path / "copy"))
    change(copy / file, **fields)
    with pytest.raises(BundleError, match=says):
        open_directory(copy)


def test_files_that_do_not_compute_the_model_are_refused_with_the_reason(tmp_path: Path) -> None:
    """Published decoders mask causally; whoever has one is told so instead of getting other answers."""
    source = make_tiny_gemma3(tmp_path / "both ways")
    for stem in ("embed_tokens", "vision_encoder", "decoder_model_merged"):
        (source / f"{stem}.onnx").write_bytes(b"")
    result = CliRunner().invoke(app, ["run", "-m", str(source), "What?"])
    assert result.exit_code == 1
    assert "attend in both directions" in result.output and "export the checkpoint" in result.output
    change(source / "config.json", architectures=["Unknown"], model_type="unknown")
    with pytest.raises(BundleError) as caught:
        open_directory(source)
    assert "Gemma3" not in str(caught.value).partition("known are")[2]
