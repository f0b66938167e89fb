"""LLaVA-NeXT: grids, pixels, token ids, stitching, tower and both engines against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits
from family_makers import changed_copy, check_missing_tensor, check_refused
from family_parity import Pair, check_goldens, check_sizes, compare_pictures, seeded_sizes
from tiny_anyres import NEXT_GRIDS, make_tiny_llava_next

import edge_mllm
from edge_mllm.bundle.tilers import BestFitGrid, Stitch
from edge_mllm.errors import BundleError, PartMismatchError
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm.session.files import open_bundle
from edge_mllm.tower.stitching import join_tiles
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.reference.probes import draw_picture

PUBLISHED = BestFitGrid(tile=336, grids=NEXT_GRIDS, stitch=Stitch())
TOKENS = {
    (394, 390): 2928,
    (380, 76): 1066,
    (768, 1536): 1776,
    (1080, 2400): 1926,
    (640, 480): 2340,
    (1920, 1080): 1948,
    (1024, 1024): 2928,
    (224, 224): 1176,
}
"""(width, height) -> visual tokens at 336 px and 14 px patches."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava_next(tmp_path_factory.mktemp("tiny") / "next")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published tile size, with few tokens a tile."""
    return Pair(make_tiny_llava_next(tmp_path_factory.mktemp("tiny") / "next336", tile=336, patch=56))


def test_grids_equal_the_reference() -> None:
    from transformers.image_processing_utils import select_best_resolution

    points = [[rows * 336, cols * 336] for rows, cols in NEXT_GRIDS]
    for width in (1, 5, 100, 335, 336, 337, 400, 672, 673, 999, 4000):
        for height in (1, 7, 112, 224, 336, 504, 672, 700, 1008, 2016, 3000):
            plan = plan_tiles(width, height, PUBLISHED)
            expected = select_best_resolution((height, width), points)
            assert (plan.rows * 336, plan.cols * 336) == expected, (width, height)


def test_tokens_of_the_published_model(pair: Pair) -> None:
    processor = pair.processor.processor
    was, processor.patch_size = processor.patch_size, 14
    try:
        for (width, height), tokens in TOKENS.items():
            assert processor._get_number_of_features(height, width, 336, 336) - 1 == tokens
            assert plan_tiles(width, height, PUBLISHED).tokens(576) == tokens
    finally:
        processor.patch_size = was


def test_stitching_is_the_references_to_the_bit() -> None:
    import torch
    from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

    config = SimpleNamespace(
        vision_config=SimpleNamespace(image_size=336, patch_size=48),
        image_grid_pinpoints=[[rows * 336, cols * 336] for rows, cols in NEXT_GRIDS],
    )
    values = np.random.default_rng(0)
    newline = values.normal(size=5).astype(np.float32)
    for width, height in [(1, 900), (900, 1), (1, 1), (336, 672), (50, 49), *seeded_sizes(150)]:
        plan = plan_tiles(width, height, PUBLISHED)
        tiles = values.normal(size=(plan.count, 49, 5)).astype(np.float32)
        ours = join_tiles(tiles, plan, newline)
        (theirs,), _ = LlavaNextModel.pack_image_features(
            SimpleNamespace(config=config),
            [torch.from_numpy(tiles)],
            [[height, width]],
            vision_feature_select_strategy="default",
            image_newline=torch.from_numpy(newline),
        )
        assert np.array_equal(ours, theirs.numpy()), (width, height)
        assert len(ours) == plan.tokens(49)


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    check_sizes(pair)


def test_goldens(pair: Pair) -> None:
    check_goldens(pair, PUBLISHED)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    compare_pictures(pair, count, "Which is larger? <|im_end|> café")


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "next.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine)


def test_one_tile_is_followed_by_a_newline(engines: Engines, checkpoint: Path) -> None:
    """As the model itself does with a picture of one tile."""
    import torch
    from transformers import LlavaNextForConditionalGeneration

    rgb = draw_picture(70, 33, seed=0)
    with edge_mllm.load(engines.out, engine="onnx", threads=1) as model:
        low = model.generate("What is it?", images=[rgb], detail="low", max_new_tokens=2)
        own = model.generate("What is it?", images=[rgb], max_new_tokens=2)
        pixels = model.preprocess(rgb).pixels
        rows = model.encode(rgb)
    assert (low.images[0].tiles, low.images[0].tokens, low.images[0].reduced) == (1, 17, True)
    assert (own.images[0].tiles, own.images[0].tokens, own.images[0].reduced) == (4, len(rows), False)
    torch_model = LlavaNextForConditionalGeneration.from_pretrained(checkpoint).eval()
    torch_model.config.image_grid_pinpoints = [[32, 32]]
    with torch.inference_mode():
        theirs = torch_model.model.vision_tower(torch.from_numpy(pixels[:1]), output_hidden_states=True)
        first = torch_model.model.multi_modal_projector(theirs.hidden_states[-2][:, 1:])
        (packed,), _ = torch_model.model.pack_image_features(
            [first], [[33, 70]], "default", torch_model.model.image_newline
        )
    np.testing.assert_allclose(rows[:16], packed.numpy()[:16], atol=1e-4)
    np.testing.assert_array_equal(packed.numpy()[16], np.load(engines.out / "newline.npy"))


def test_four_bit_bundle_runs_and_is_verified(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "four.edge"
    spec, answers = four_bits(checkpoint, out)
    pictures = [size for prompt in spec.verification["prompts"] for size in prompt["pictures"]]
    assert spec.verification["vision"]["tiles"] == len(pictures) >= 5  # stitched: one a picture
    assert all((answer.images[0].tiles, answer.usage.image_tokens) == (4, 52) for answer in answers)
    _damage(out)


def _damage(out: Path) -> None:
    """A bundle without its newline, with a wrong one, with grids that are none: one error each."""
    document = json.loads((out / "bundle.json").read_text(encoding="utf-8"))
    without = document | {"parts": {name: part for name, part in document["parts"].items() if name != "newline"}}
    grids = json.loads(json.dumps(document))
    grids["image"]["tiler"]["grids"][0] = [0, 2]
    for damaged, says in ((without, "names no newline"), (grids, r"image\.tiler\.grids")):
        (out / "bundle.json").write_text(json.dumps(damaged), encoding="utf-8")
        with pytest.raises(BundleError, match=says):
            open_bundle(out)
    (out / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    np.save(out / "newline.npy", np.zeros((4, 16), np.float32))
    with (
        edge_mllm.load(out, threads=1, check_hashes=False) as model,
        pytest.raises(PartMismatchError, match="newline embedding should be"),
    ):
        model.generate("What is it?", images=[draw_picture(70, 33, seed=0)], max_new_tokens=1)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("preprocessor_config.json", {"image_grid_pinpoints": [[32, 40]]}, r"preprocessor_config.json.*pinpoints"),
        ("preprocessor_config.json", {"image_grid_pinpoints": [[64, 64]]}, r"config.json.*image_grid_pinpoints"),
        ("preprocessor_config.json", {"image_grid_pinpoints": []}, r"preprocessor_config.json.*pinpoints"),
        ("preprocessor_config.json", {"crop_size": {"height": 16, "width": 16}}, r"crop_size.*size is 32"),
        ("config.json", {"vision_feature_select_strategy": "full"}, r"config.json.*select_strategy"),
        ("config.json", {"image_token_index": 7}, r"config.json.*image_token_index"),
    ],
)
def test_hostile_settings_name_file_and_field(
    checkpoint: Path, tmp_path: Path, file: str, change: dict, says: str
) -> None:
    check_refused(open_checkpoint(changed_copy(checkpoint, tmp_path, file, change)), says)


def test_the_newline_must_be_there(checkpoint: Path, tmp_path: Path) -> None:
    check_missing_tensor(checkpoint, tmp_path, "image_newline")
