"""LLaVA 1.5 and SigLIP with a small language model: pixels, token ids, tower and both engines against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits
from family_makers import check_refused
from family_parity import GOLDEN_SIZES, Pair, compare_pictures, seeded_sizes
from tiny_llava import make_tiny_llava

from edge_mllm.bundle.tilers import SingleTile
from edge_mllm.errors import ImageError
from edge_mllm.picture.tile_plan import fit_tiler, plan_tiles
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.families.registry import find_family

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "llava.json"
PADDED = {"image_processor_type": "LlavaImageProcessor", "do_pad": True}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("tiny") / request.param, tower=request.param)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published tile size, with few tokens."""
    return Pair(make_tiny_llava(tmp_path_factory.mktemp("tiny") / "llava336", tile=336, patch=56))


@pytest.mark.parametrize(
    ("settings", "fit"),
    [
        ({"tower": "clip"}, "crop"),
        ({"tower": "siglip"}, "stretch"),
        ({"tower": "clip", "processor": PADDED}, "pad"),
    ],
    ids=["crop", "stretch", "pad"],
)
def test_twenty_four_sizes_equal_the_reference(tmp_path: Path, settings: dict, fit: str) -> None:
    pair = Pair(make_tiny_llava(tmp_path / "source", tile=336, patch=56, **settings))
    assert pair.spec.image.tiler.fit == fit
    for size in [(1, 1), (640, 480), (337, 336), *seeded_sizes(21, longest=1200)]:
        row = pair.row(size)
        assert row["pixels_equal"] and row["ids_equal"], row
        assert row["tiles"] == 1


def test_goldens(pair: Pair) -> None:
    """From the reference; the phone's runtime reads them too."""
    rows = json.loads(GOLDEN.read_text(encoding="utf-8"))["results"][0]["rows"]
    assert [(row["width"], row["height"]) for row in rows] == GOLDEN_SIZES
    assert all(row["pixels_equal"] and row["ids_equal"] and row["tokens"] == 36 for row in rows)
    small = next(row for row in rows if (row["width"], row["height"]) == (380, 76))
    assert pair.row((380, 76)) == small


def test_a_picture_that_would_become_endless_is_refused() -> None:
    tiler = SingleTile(tile=336, fit="crop")
    with pytest.raises(ImageError, match="too long and thin"):
        plan_tiles(1, 2000, tiler)
    assert fit_tiler(tiler, 640, 480, 1) is tiler


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    found = compare_pictures(pair, count, "Which is larger? <|im_end|> café")
    assert int((found.ids == pair.spec.prompt.image_token_id).sum()) == count * 36


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "llava.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine)


@pytest.mark.parametrize(("tower", "layers"), [("clip", -1), ("clip", 2), ("clip", [-3, -1]), ("siglip", -2)])
def test_any_layers_reach_the_projector(tmp_path: Path, tower: str, layers: int | list[int]) -> None:
    """Against the model's own method, without an export."""
    import torch
    from transformers import LlavaForConditionalGeneration

    source = make_tiny_llava(tmp_path / "source", tower=tower, layers=layers)
    opened = open_checkpoint(source)
    family = find_family(opened)
    check_tensors(opened, family)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = LlavaForConditionalGeneration.from_pretrained(source).eval()
    with torch.inference_mode():
        ours = family.build_tower(opened)(pixels)
        theirs = torch.stack(model.get_image_features(pixels).pooler_output)
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=-1).min() > 0.99999


def test_four_bit_bundle_runs_and_is_verified(tmp_path: Path) -> None:
    source = make_tiny_llava(tmp_path / "source", tower="siglip")
    _, answers = four_bits(source, tmp_path / "four.edge")
    assert all((answer.images[0].tiles, answer.usage.image_tokens) == (1, 16) for answer in answers)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("preprocessor_config.json", {"image_processor_type": "OtherImageProcessor"}, "image_processor_type"),
        ("preprocessor_config.json", {"crop_size": {"height": 16, "width": 16}}, "size"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 64}, "crop_size": 64}, r"size.*image_size is 32"),
        ("config.json", {"image_token_index": 7}, r"config.json.*image_token_index"),
    ],
)
def test_hostile_settings_name_file_and_field(tmp_path: Path, file: str, change: dict, says: str) -> None:
    source = make_tiny_llava(tmp_path / "source")
    document = json.loads((source / file).read_text(encoding="utf-8")) | change
    (source / file).write_text(json.dumps(document), encoding="utf-8")
    check_refused(open_checkpoint(source), says)
