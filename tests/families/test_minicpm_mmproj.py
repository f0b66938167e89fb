"""MiniCPM-V in llama.cpp's own files: its scripts write the same, libmtmd runs them, and pairs read as bundles do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_makers import changed_copy
from oracle.gguf_compare import convert_all, key_differences, tensor_differences
from oracle.llama_cpp_source import SourceMissingError, llama_cpp_source
from oracle.minicpmv_legacy import convert_tower
from tiny_minicpm_v import make_tiny_minicpm_v, make_tiny_minicpm_v_2_6, make_tiny_minicpm_v_4_5
from tiny_minicpm_v_4_6 import make_tiny_minicpm_v_4_6
from typer.testing import CliRunner

import edge_mllm
from edge_mllm.bundle.gguf_pair import read_pair
from edge_mllm.cli.main import app
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.families.task import resolve_task
from edge_mllm_export.reference.probes import Probe, draw_picture
from edge_mllm_export.reference.reference import Reference
from edge_mllm_export.write.gguf.decoder import write_decoder_gguf
from edge_mllm_export.write.text_model import write_text_checkpoint
from edge_mllm_export.write.vision.mmproj import write_mmproj

SCALE = 112
"""Side of a slice in pixels; libmtmd's table of positions has 70 rows whatever it is."""
SIZES = {"side": 70, "scale": SCALE}
RESAMPLERS: dict[str, tuple[int, Callable[..., Path]]] = {
    "2.6": (3, make_tiny_minicpm_v_2_6),
    "4.0": (5, make_tiny_minicpm_v),
    "4.5": (6, make_tiny_minicpm_v_4_5),
}
"""Release -> llama.cpp's number of it, maker."""
MAKERS: dict[str, Callable[..., Path]] = {
    **{name: partial(make, image_size=SCALE) for name, (_, make) in RESAMPLERS.items()},
    "4.6": make_tiny_minicpm_v_4_6,
    "4.6 with 4x": partial(make_tiny_minicpm_v_4_6, mode="4x"),
}
SCRIPT_ONLY = {"general.description", "general.type", "general.size_label", "general.quantization_version"}
"""Keys that say what a file is, which the script of the older releases writes otherwise than today's converter."""
OWN = {"edge_mllm.before_picture", "edge_mllm.positions"}
"""Keys of ours, which llama.cpp does not read."""
QUESTION = "What is it?"
_EVERY_TIME = ("4.0", "4.6")


def slowly(names: Iterable[str]) -> list[Any]:
    """Parameters of a test; all but one of each projector are slow."""
    return [name if name in _EVERY_TIME else pytest.param(name, marks=pytest.mark.slow) for name in names]


@dataclass(frozen=True)
class Pair:
    """A checkpoint with the two files written from it, in F32."""

    checkpoint: Checkpoint
    text: Path
    decoder: Path
    mmproj: Path


@pytest.fixture(scope="module")
def source() -> Path:
    try:
        return llama_cpp_source()
    except SourceMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """Pairs by release, each made once."""
    made: dict[str, Pair] = {}

    def write(name: str) -> Pair:
        if name not in made:
            out = tmp_path_factory.mktemp("pair")
            checkpoint = open_checkpoint(MAKERS[name](out / "tiny", **SIZES))
            text = write_text_checkpoint(checkpoint, find_family(checkpoint), out / "text")
            write_decoder_gguf(text, out / "decoder.gguf", "f32", name="tiny")
            write_mmproj(checkpoint, find_family(checkpoint), out / "mmproj.gguf", "f32")
            made[name] = Pair(checkpoint, text, out / "decoder.gguf", out / "mmproj.gguf")
        return made[name]

    return write


@pytest.mark.parametrize("name", slowly(RESAMPLERS))
def test_the_tower_is_the_scripts(name: str, written: Callable[[str], Pair], source: Path, tmp_path: Path) -> None:
    """Every tensor byte for byte, and every key that libmtmd reads."""
    checkpoint, ours = written(name).checkpoint, tmp_path / "ours.gguf"
    for kind in ("f32", "f16"):
        number = RESAMPLERS[name][0]
        theirs = convert_tower(source, checkpoint.path, tmp_path / kind, number, f32=kind == "f32")
        write_mmproj(checkpoint, find_family(checkpoint), ours, kind)
        assert tensor_differences(ours, theirs) == []
        assert set(key_differences(ours, theirs)) == SCRIPT_ONLY | {"edge_mllm.before_picture"}


@pytest.mark.parametrize("name", slowly(("4.6", "4.6 with 4x")))
def test_the_files_are_the_converters(name: str, written: Callable[[str], Pair], source: Path, tmp_path: Path) -> None:
    """Every tensor byte for byte and every key, with three of the decoder's that say what the reference computes."""
    pair, ours = written(name), tmp_path / "ours.gguf"
    theirs = {kind: tmp_path / f"{kind}.gguf" for kind in ("f32", "f16", "q8_0")}
    jobs = [(pair.checkpoint.path, file, ("--mmproj", "--outtype", kind)) for kind, file in theirs.items()]
    text = (pair.checkpoint.path, tmp_path / "text.gguf", ("--outtype", "f32", "--no-mtp"))
    convert_all(source, [*jobs, text], pre="qwen35")
    for kind, file in theirs.items():
        write_mmproj(pair.checkpoint, find_family(pair.checkpoint), ours, kind)
        assert tensor_differences(ours, file) == []
        assert set(key_differences(ours, file)) == OWN
    assert tensor_differences(pair.decoder, text[1]) == []
    known = {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"}
    known |= {"qwen35.full_attention_interval", "qwen35.rope.dimension_sections"}  # not in the tiny model's config.json
    assert set(key_differences(pair.decoder, text[1])) <= known
    if name == "4.6":
        files = read_pair(pair.decoder, theirs["f16"])
        assert (files.decoder.positions, files.decoder.axes, files.before_picture) == ("sequential", 3, "")


@pytest.mark.slow
def test_the_older_decoders_are_the_converters(written: Callable[[str], Pair], source: Path, tmp_path: Path) -> None:
    """Of the language model's directory alone, as llama.cpp's minicpmv-surgery.py writes it."""
    jobs = [(written(name).text, tmp_path / f"{name}.gguf", ("--outtype", "f32")) for name in RESAMPLERS]
    convert_all(source, jobs, pre="qwen2")
    for name in RESAMPLERS:
        assert tensor_differences(written(name).decoder, tmp_path / f"{name}.gguf") == []


@pytest.mark.parametrize("name", slowly(MAKERS))
def test_pairs_answer_as_the_reference(name: str, written: Callable[[str], Pair]) -> None:
    """Ids, embeddings and the greedy continuation, of pictures that libmtmd fits into its slices as the model does."""
    pair = written(name)
    family = find_family(pair.checkpoint)
    reference = Reference(pair.checkpoint, family, resolve_task(pair.checkpoint, family))
    pictures = [draw_picture(SCALE * side, SCALE * side, seed=side) for side in (1, 2)]
    with edge_mllm.load(pair.decoder, mmproj=pair.mmproj, threads=1, kv_type="f32") as model:
        for shown in ([], pictures[:1], pictures[1:], pictures):
            answer = reference.answer(Probe(QUESTION, tuple(shown)), new_tokens=6)
            expected = np.array(answer.inputs.ids)
            expected[expected == family.prompt(pair.checkpoint).image_token_id] = -1
            assert model.prompt_ids(QUESTION, shown).tolist() == expected.tolist()
            if shown:
                rows = np.concatenate([model.encode(picture) for picture in shown])
                assert rows.shape == answer.visual.shape
                norms = np.linalg.norm(rows, axis=-1) * np.linalg.norm(answer.visual, axis=-1)
                assert ((rows * answer.visual).sum(-1) / norms).min() > 0.9999
            found = model.generate(QUESTION, shown, max_new_tokens=6)
            tokens = [int(token) for token in answer.tokens if token not in model.reader.stop_token_ids]
            assert found.text == model.reader.tokenizer.decode(tokens, skip_special_tokens=True)


def test_any_picture_has_the_models_tokens(written: Callable[[str], Pair]) -> None:
    """libmtmd fills slices up with black where a picture has another shape, so that rows are near and ids equal."""
    pair = written("4.0")
    family = find_family(pair.checkpoint)
    reference = Reference(pair.checkpoint, family, resolve_task(pair.checkpoint, family))
    with edge_mllm.load(pair.decoder, mmproj=pair.mmproj, threads=1) as model:
        for size in ((300, 400), (500, 130), (1080, 2400)):
            picture = draw_picture(*size, seed=1)
            expected = reference.answer(Probe(QUESTION, (picture,)), new_tokens=1)
            ids = np.array(expected.inputs.ids)
            ids[ids == family.prompt(pair.checkpoint).image_token_id] = -1
            assert model.prompt_ids(QUESTION, [picture]).tolist() == ids.tolist()
            assert np.corrcoef(model.encode(picture).ravel(), expected.visual.ravel())[0, 1] > 0.98


def test_eight_bits(written: Callable[[str], Pair], tmp_path: Path) -> None:
    """A type that the script does not have."""
    pair, picture = written("4.0"), draw_picture(SCALE, SCALE, seed=1)
    write_mmproj(pair.checkpoint, find_family(pair.checkpoint), tmp_path / "mmproj.gguf", "q8_0")
    assert (tmp_path / "mmproj.gguf").stat().st_size < pair.mmproj.stat().st_size
    rows = []
    for file in (pair.mmproj, tmp_path / "mmproj.gguf"):
        with edge_mllm.load(pair.decoder, mmproj=file, threads=1) as model:
            rows.append(model.encode(picture).ravel())
    assert 0.999 < np.corrcoef(*rows)[0, 1] < 1


def test_the_command_line(written: Callable[[str], Pair], tmp_path: Path) -> None:
    from PIL import Image

    pair, picture = written("4.0"), tmp_path / "picture.png"
    Image.fromarray(draw_picture(SCALE * 2, SCALE * 2, seed=1)).save(picture)
    files = ["-m", str(pair.decoder), "--mmproj", str(pair.mmproj)]
    done = CliRunner().invoke(
        app, ["run", *files, "-i", str(picture), "--json", "--threads", "1", "--max-new-tokens", "2", QUESTION]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["usage"]["image_tokens"] == 45
    shown = CliRunner().invoke(app, ["inspect", str(pair.decoder), "--mmproj", str(pair.mmproj)])
    assert shown.exit_code == 0 and "projector resampler" in shown.stdout


@pytest.mark.parametrize(
    ("name", "file", "change", "says"),
    [
        ("4.0", "config.json", {"vision_config": {"image_size": 140}}, r"image_size: makes a table of 10 rows"),
        ("4.6", "config.json", {"vision_config": {"image_size": 140}}, r"image_size: makes a table of 10 rows"),
        ("4.0", "config.json", {"vision_config": {"hidden_act": "gelu"}}, r"hidden_act: is 'gelu'"),
        ("4.0", "config.json", {"vision_config": {"layer_norm_eps": 1e-5}}, r"layer_norm_eps: is 1e-05"),
        ("4.0", "config.json", {"vision_config": {"hidden_size": 256}}, r"hidden_size: is 256.*kv_proj"),
        ("4.0", "preprocessor_config.json", {"max_slice_nums": 4}, r"preprocessor_config.json.*max_slice_nums.*9"),
        ("4.6", "preprocessor_config.json", {"slice_mode": False}, r"preprocessor_config.json.*max_slice_nums.*9"),
    ],
)
def test_what_libmtmd_would_compute_otherwise_is_refused(
    written: Callable[[str], Pair], tmp_path: Path, name: str, file: str, change: dict[str, Any], says: str
) -> None:
    checkpoint, whole = written(name).checkpoint, dict(change)
    if "vision_config" in change:
        whole["vision_config"] = checkpoint.config["vision_config"] | change["vision_config"]
    (tmp_path / "changed").mkdir()
    opened = open_checkpoint(changed_copy(checkpoint.path, tmp_path / "changed", file, whole))
    with pytest.raises(CheckpointError, match=says):
        write_mmproj(opened, find_family(opened), tmp_path / "mmproj.gguf", "f16")
    assert not (tmp_path / "mmproj.gguf").exists()


def test_an_export_refuses_it_at_once(written: Callable[[str], Pair], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    changed_copy(written("4.0").checkpoint.path, tmp_path / "a", "preprocessor_config.json", {"max_slice_nums": 4})
    said: list[str] = []
    with pytest.raises(CheckpointError, match="max_slice_nums"):
        export_bundle(str(tmp_path / "a"), tmp_path / "out.edge", ExportOptions(mmproj=True), announce=said.append)
    assert len(said) == 1 and said[0].startswith("opening")
