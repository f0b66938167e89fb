"""Gemma 3: pan-and-scan, pixels, token ids, tower, both engines and llama.cpp's files against transformers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower
from family_makers import changed_copy, check_refused
from family_parity import GOLDEN_SIZES, Pair, seeded_sizes
from image_settings import picture
from oracle.gguf_compare import convert_all, key_differences, metadata, tensor_differences, tensors
from oracle.libmtmd import MARKER, LibMtmd
from oracle.llama_cpp_source import needed_llama_cpp_source
from tiny_gemma3 import make_tiny_gemma3

import edge_mllm
from edge_mllm.answer.decoding.splice import splice
from edge_mllm.bundle.tilers import PanAndScan
from edge_mllm.errors import PartMismatchError, SettingError
from edge_mllm.picture.tile_plan import fit_tiler, low_detail, plan_tiles
from edge_mllm_export import ExportOptions, export_bundle
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.probes import draw_picture
from edge_mllm_export.reference.processor import load_processor
from edge_mllm_export.write.vision.mmproj import write_mmproj

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "gemma3.json"
PUBLISHED = PanAndScan(tile=896, min_crop=256, max_crops=4, min_ratio=1.2)
PIECES = {
    (394, 390): 0,
    (380, 76): 0,
    (500, 102): 0,
    (768, 1536): 2,
    (1080, 2400): 2,
    (640, 480): 2,
    (1920, 1080): 2,
    (1024, 1024): 0,
    (3000, 4000): 2,
    (2480, 3508): 2,
    (224, 224): 0,
}
"""(width, height) -> pieces beside the whole."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gemma3(tmp_path_factory.mktemp("tiny") / "gemma3")


@pytest.fixture(scope="module")
def pair(checkpoint: Path) -> Pair:
    return Pair(checkpoint)


@pytest.fixture(scope="module")
def panning(checkpoint: Path) -> Pair:
    return Pair(checkpoint, pan_and_scan=True)


def test_the_table_of_pieces() -> None:
    for size, pieces in PIECES.items():
        plan = plan_tiles(*size, PUBLISHED)
        assert plan.count == (pieces + 1 if pieces else 1), size
        assert plan.tile_size == (896, 896)
        assert plan.global_first == bool(pieces)


def test_pieces_are_the_references() -> None:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    processor, rng = Gemma3ImageProcessorPil(), random.Random(5)
    for _ in range(500):
        width, height = (round(200 * 20 ** rng.random()) for _ in range(2))
        # Two pictures whose values are their own columns and rows, without memory.
        across, down = (
            processor.pan_and_scan(np.broadcast_to(line, (1, height, width)), 256, 4, 1.2)
            for line in (np.arange(width), np.arange(height)[:, None])
        )
        expected = [
            (int(x[0, 0, 0]), int(y[0, 0, 0]), int(x[0, -1, -1]) + 1, int(y[0, -1, -1]) + 1)
            for x, y in zip(across, down, strict=True)
        ]
        plan = plan_tiles(width, height, PUBLISHED)
        assert list(plan.crops if plan.has_global else ()) == expected, (width, height)


def test_limits_take_pieces_away() -> None:
    assert plan_tiles(4000, 1000, PUBLISHED).count == 5
    for most in range(1, 6):
        count = plan_tiles(4000, 1000, fit_tiler(PUBLISHED, 4000, 1000, most)).count
        assert count == (most if most > 2 else 1)  # a picture is cut into two pieces or not at all
    assert plan_tiles(4000, 1000, low_detail(PUBLISHED, 4000, 1000)).count == 1


@pytest.mark.parametrize("kind", ["pair", "panning"])
def test_twenty_four_sizes_equal_the_reference(kind: str, request: pytest.FixtureRequest) -> None:
    for size in [(1, 1), (640, 480), (900, 512), *seeded_sizes(21, longest=1200)]:
        row = request.getfixturevalue(kind).row(size)
        assert row["pixels_equal"] and row["ids_equal"], row


def test_goldens(pair: Pair, panning: Pair) -> None:
    """From the reference, without and with pieces; the phone's runtime reads them too."""
    documents = json.loads(GOLDEN.read_text(encoding="utf-8"))["results"]
    for document, tiny in zip(documents, (pair, panning), strict=True):
        assert [(row["width"], row["height"]) for row in document["rows"]] == GOLDEN_SIZES
        assert all(row["pixels_equal"] and row["ids_equal"] for row in document["rows"])
        assert {row["tokens"] // row["tiles"] for row in document["rows"]} == {16}
        for row in document["rows"]:
            plan = plan_tiles(row["width"], row["height"], tiny.spec.image.tiler)
            assert ([plan.rows, plan.cols], plan.count) == (row["grid"], row["tiles"])


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("kind", ["pair", "panning"])
def test_ids_with_pictures(kind: str, count: int, request: pytest.FixtureRequest) -> None:
    pair: Pair = request.getfixturevalue(kind)
    found = pair.compare([picture(30 + 300 * n, 300) for n in range(count)], "Which? <end_of_turn> café\n 日本")
    assert found.ids_equal and found.pixels_equal
    assert (found.ids == pair.spec.prompt.image_token_id).any() == bool(count)
    assert found.ids[0] == 2 and (found.ids == 2).sum() == 1


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "gemma3.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


def test_answers_depend_on_the_picture(engines: Engines) -> None:
    assert len({answer.tokens.tobytes() for answer in engines.answers}) > len(engines.answers) // 2


@pytest.mark.parametrize(("engine", "kl_max", "worst"), [("onnx", 1e-9, 1e-4), ("gguf", 5e-6, 0.05)])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str, kl_max: float, worst: float) -> None:
    """ggml looks GELU up in a table of half-precision numbers, so llama.cpp's logits are up to 4e-3 away here."""
    check_continuations(engines, engine, kl_max=kl_max, worst=worst)


@pytest.mark.parametrize(("engine", "worst"), [("onnx", 1e-4), ("gguf", 0.05)])
def test_pictures_see_themselves_whatever_the_chunks(engines: Engines, engine: str, worst: float) -> None:
    """In small runs too, and differently from a model whose pictures are read like text."""
    import dataclasses

    from edge_mllm.decoders.select import open_decoder
    from edge_mllm.decoders.settings import DecoderSettings
    from edge_mllm.session.files import open_bundle

    bundle = open_bundle(engines.out)
    prepared = engines.prepared[-1]
    rows = np.split(engines.candidate.encode(prepared), len(prepared.pictures))
    segments = splice(prepared.prompt, rows, bundle.spec.decoder.n_embd)
    found = {}
    for chunk in (512, 20, 3):
        settings = DecoderSettings(threads=1, kv_type="f32", chunk=chunk)
        decoder = open_decoder(bundle, engine, settings)  # type: ignore[arg-type]
        found[chunk] = decoder.prefill(segments)
        decoder.close()
    assert np.abs(found[20] - found[512]).max() < worst
    assert np.abs(found[3] - found[512]).max() < worst
    causal = dataclasses.replace(bundle.spec.decoder, image_attention="causal")
    spec = dataclasses.replace(bundle.spec, decoder=causal)
    other = dataclasses.replace(bundle, spec=spec)
    settings = DecoderSettings(threads=1, kv_type="f32")
    if engine == "onnx":
        with pytest.raises(PartMismatchError, match="pictures attend causal"):
            open_decoder(other, "onnx", settings)
        return
    decoder = open_decoder(other, "gguf", settings)
    assert np.abs(decoder.prefill(segments) - found[512]).max() > 10 * worst
    decoder.close()


def test_four_bit_bundle_with_pieces_runs_and_is_verified(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "four.edge"
    spec = export_bundle(str(checkpoint), out, ExportOptions(allow_loss=True, calibration=False, pan_and_scan=True))
    assert spec.verification["pixels"]["max_abs_difference"] == 0
    assert spec.verification["token_ids"]["equal"] == spec.verification["token_ids"]["prompts"]
    assert spec.verification["vision"]["cosine_mean"] > 0.98
    assert spec.parts["decoder_onnx"].precision == "int4_b32"
    assert spec.image.tiler == PanAndScan(tile=64, min_crop=256, max_crops=4, min_ratio=1.2)
    for engine in ("onnx", "gguf"):
        with edge_mllm.load(out, engine=engine, threads=1) as model:
            chat = model.chat()
            first = chat.ask("What is it?", images=[draw_picture(700, 300, seed=0)])
            again = chat.ask("And where?")
            few = model.generate("What?", images=[draw_picture(700, 300, seed=0)], max_new_tokens=2, detail="low")
        assert (first.images[0].tiles, first.images[0].tokens) == (3, 48)
        assert few.images[0].tiles == 1
        assert again.usage.prompt_tokens > first.usage.prompt_tokens


def test_pan_and_scan_is_refused_where_it_is_unknown(tiny_smolvlm: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="pan and scan: not known for idefics3; leave `pan_and_scan` out"):
        export_bundle(str(tiny_smolvlm), tmp_path / "out.edge", ExportOptions(pan_and_scan=True))


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("preprocessor_config.json", {"size": {"height": 32, "width": 64}}, r"preprocessor_config.json.*size"),
        ("preprocessor_config.json", {"size": {"height": 32, "width": 32}}, r"the tower takes 64 pixels"),
        ("config.json", {"mm_tokens_per_image": 15}, r"config.json.*mm_tokens_per_image"),
        ("config.json", {"mm_tokens_per_image": 9}, r"config.json.*mm_tokens_per_image"),
        ("config.json", {"mm_tokens_per_image": 64}, r"sliding_window.*less than the 64 tokens"),
        ("config.json", {"image_token_index": 7}, r"config.json.*image_token_index"),
        ("config.json", {"boi_token_index": 7}, r"config.json.*boi_token_index"),
    ],
)
def test_hostile_settings_name_file_and_field(
    checkpoint: Path, tmp_path: Path, file: str, change: dict, says: str
) -> None:
    opened = open_checkpoint(changed_copy(checkpoint, tmp_path, file, change))
    check_refused(opened, says, "image", "vision", "prompt", "decoder")


@pytest.fixture(scope="module")
def source() -> Path:
    return needed_llama_cpp_source()


def test_the_files_are_the_converters(checkpoint: Path, engines: Engines, source: Path, tmp_path: Path) -> None:
    """Tower and decoder, every tensor byte for byte and every key.

    Without the original's tokenizer.model their converter writes another kind of vocabulary, and a table without the
    rows that no token uses.
    """
    kinds = ("f32", "f16", "q8_0")
    theirs = {kind: tmp_path / f"{kind}.gguf" for kind in kinds}
    text = tmp_path / "text.gguf"
    jobs = [(checkpoint, file, ("--mmproj", "--outtype", kind)) for kind, file in theirs.items()]
    convert_all(source, [*jobs, (checkpoint, text, ("--outtype", "f32"))], pre="qwen2")
    opened = open_checkpoint(checkpoint)
    for kind, file in theirs.items():
        ours = tmp_path / "ours.gguf"
        write_mmproj(opened, find_family(opened), ours, kind)
        assert tensor_differences(ours, file) == []
        assert key_differences(ours, file) == {}
        assert metadata(file)["clip.projector_type"][1] == "gemma3"
    decoder = engines.out / "decoder.gguf"
    assert tensor_differences(decoder, text) == ["token_embd.weight"]
    kept, cut = tensors(decoder)["token_embd.weight"][2], tensors(text)["token_embd.weight"][2]
    assert kept[: len(cut)] == cut and len(cut) > 0.9 * len(kept)
    differing = {key for key in key_differences(decoder, text) if not key.startswith("tokenizer.")}
    assert differing <= {"general.size_label"}


def test_libmtmd_answers_as_torch(checkpoint: Path, engines: Engines, tmp_path: Path) -> None:
    """A picture that needs no resizing; libmtmd lets pictures see themselves as we do."""
    import torch
    from transformers import AutoModelForImageTextToText

    opened = open_checkpoint(checkpoint)
    family = find_family(opened)
    write_mmproj(opened, family, tmp_path / "mmproj.gguf", "f32")
    rgb = draw_picture(64, 64, seed=1)
    prompt = "<bos><start_of_turn>user\n{}What is it?<end_of_turn>\n<start_of_turn>model\n"
    library = LibMtmd(engines.out / "decoder.gguf", tmp_path / "mmproj.gguf")
    try:
        marked = prompt.format(f"\n\n{MARKER}\n\n")
        found = library.evaluate(marked, rgb, image_token=opened.token_id("<image_soft_token>"))
    finally:
        library.close()
    processor = load_processor(opened, family).processor
    text = prompt.format("<start_of_image>")
    inputs = processor(text=text, images=[rgb], return_tensors="pt", add_special_tokens=False)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        visual = model.get_image_features(inputs["pixel_values"]).pooler_output.reshape(-1, 64).numpy()
        logits = model(**inputs).logits[0, -1].numpy()
    assert found.ids == inputs["input_ids"][0].tolist()
    assert np.corrcoef(found.embeddings.ravel(), visual.ravel())[0, 1] > 0.999
    assert np.corrcoef(found.logits, logits)[0, 1] > 0.98
