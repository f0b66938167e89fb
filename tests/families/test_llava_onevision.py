"""LLaVA-OneVision: grids, pixels, token ids, stitching with shrinking, tower and both engines against transformers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits
from family_makers import changed_copy, check_refused
from family_parity import Pair, check_goldens, check_sizes, compare_pictures, seeded_sizes
from PIL import Image
from tiny_anyres import make_tiny_llava_onevision

import edge_mllm
from edge_mllm.answer.messages import user_message
from edge_mllm.bundle.tilers import BestFitGrid, SingleTile, Stitch
from edge_mllm.picture.tile_plan import fit_tokens, plan_tiles
from edge_mllm.tower.stitching import join_tiles
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.probes import draw_picture
from edge_mllm_export.reference.processor import load_processor

GRIDS = tuple((rows, cols) for rows in range(1, 7) for cols in range(1, 7))
PUBLISHED = BestFitGrid(tile=384, grids=GRIDS, stitch=Stitch(max_tiles=9))
TOKENS = {
    (394, 390): 3699,
    (380, 76): 869,
    (768, 1536): 6669,
    (1080, 2400): 7329,
    (640, 480): 2929,
    (1920, 1080): 7269,
    (1024, 1024): 7371,
    (3000, 4000): 7332,
    (224, 224): 1485,
}
"""(width, height) -> visual tokens of the published model."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps are shrunk to two tiles' tokens, so that small pictures need it."""
    return make_tiny_llava_onevision(tmp_path_factory.mktemp("tiny") / "onevision", most=2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published tile size, with few tokens a tile."""
    return Pair(make_tiny_llava_onevision(tmp_path_factory.mktemp("tiny") / "ov384", tile=384, patch=64))


def test_tokens_of_the_published_model(pair: Pair) -> None:
    processor = pair.processor.processor
    was, processor.num_image_tokens = processor.num_image_tokens, 729
    try:
        for (width, height), tokens in TOKENS.items():
            assert processor._get_number_of_features(height, width, 384, 384) == tokens
            assert plan_tiles(width, height, PUBLISHED).tokens(729) == tokens
        for width, height in [(1, 900), (900, 1), *seeded_sizes(300, longest=6000)]:
            expected = processor._get_number_of_features(height, width, 384, 384)
            assert plan_tiles(width, height, PUBLISHED).tokens(729) == expected, (width, height)
    finally:
        processor.num_image_tokens = was


def test_stitching_is_the_references() -> None:
    import torch
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    config = SimpleNamespace(
        vision_config=SimpleNamespace(image_size=384, patch_size=55),
        image_grid_pinpoints=[[rows * 384, cols * 384] for rows, cols in GRIDS],
    )
    values = np.random.default_rng(0)
    newline = values.normal(size=5).astype(np.float32)
    shrunk = 0
    large = [(1300 + 71 * number, 2300 - 67 * number) for number in range(15)]
    for width, height in [(1, 900), (900, 1), (2304, 2304), (2300, 400), *large, *seeded_sizes(60)]:
        plan = plan_tiles(width, height, PUBLISHED)
        tiles = values.normal(size=(plan.count, 36, 5)).astype(np.float32)
        ours = join_tiles(tiles, plan, newline)
        (theirs,), _ = LlavaOnevisionModel.pack_image_features(
            SimpleNamespace(config=config),
            [torch.from_numpy(tiles)],
            [[height, width]],
            image_newline=torch.from_numpy(newline),
            vision_aspect_ratio="anyres_max_9",
        )
        if plan.token_map(36).shrunk:
            shrunk += 1
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=2e-6)
        else:
            assert np.array_equal(ours, theirs.numpy()), (width, height)
    assert shrunk > 10


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    check_sizes(pair)


def test_goldens(pair: Pair) -> None:
    check_goldens(pair, PUBLISHED)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    found = compare_pictures(pair, count, "Which is larger? <|im_end|> café")
    visual = int((found.ids == pair.spec.prompt.image_token_id).sum())
    assert visual == {0: 0, 1: plan_tiles(30, 50, pair.spec.image.tiler).tokens(36), 3: 3 * 37}[count]


def test_a_limit_on_tokens_takes_smaller_grids() -> None:
    for limit in (7000, 3000, 1500, 800, 730):
        fitted = fit_tokens(PUBLISHED, (1920, 1080), limit, 729)
        assert plan_tiles(1920, 1080, fitted).tokens(729) <= limit
        assert set(fitted.grids) < set(GRIDS)
    assert fit_tokens(PUBLISHED, (1920, 1080), 730, 729).grids == ()
    assert fit_tokens(PUBLISHED, (1920, 1080), 7269, 729) is PUBLISHED


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "onevision.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)
    plans = [item.plan for prepared in engines.prepared for item in prepared.pictures]
    assert sum(plan.count > 1 and plan.token_map(16).shrunk for plan in plans) >= 3
    assert [plan.count for plan in plans[-2:]] == [1, 1]  # two pictures in one prompt


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine)


def test_pictures_are_counted_by_conversation(engines: Engines, tmp_path: Path) -> None:
    """As in transformers, where a second picture changes the tiling of the first, in whatever turn it comes."""
    first, second = draw_picture(70, 33, seed=0), draw_picture(40, 90, seed=1)
    with edge_mllm.load(engines.out, engine="onnx", threads=1) as model:
        together = model.generate("Compare.", images=[first, second], max_new_tokens=1)
        chat = model.chat()
        alone = chat.ask("What is it?", images=[first], max_new_tokens=3)
        chat.save(tmp_path / "chat.bin")
        again = model.load_chat(tmp_path / "chat.bin")
        said = list(chat.messages)
        later = [each.ask("And this?", images=[second], max_new_tokens=2) for each in (chat, again)]
    single = [(1, 17, False)] * 2
    assert [(image.tiles, image.tokens, image.reduced) for image in together.images] == single
    assert alone.images[0].tiles > 1
    for answer in later:
        assert [(image.tiles, image.tokens, image.reduced) for image in answer.images] == single
    assert later[0].text == later[1].text
    ids = reference_ids(engines.source, [*said, user_message("And this?", 1)], [first, second])
    assert later[0].usage.prompt_tokens == len(ids)


def reference_ids(source: Path, messages: list, rgbs: list[np.ndarray]) -> list[int]:
    """A whole conversation through transformers' processor."""
    opened = open_checkpoint(source)
    processor = load_processor(opened, find_family(opened))
    ids: list[int] = processor.inputs(messages, [Image.fromarray(rgb) for rgb in rgbs])["input_ids"][0].tolist()
    return ids


def test_four_bit_bundle_runs_and_is_verified(checkpoint: Path, tmp_path: Path) -> None:
    spec, _ = four_bits(checkpoint, tmp_path / "four.edge")
    assert spec.image.several == SingleTile(tile=32, fit="pad", fill=(127, 127, 127), stitch=Stitch())


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("config.json", {"vision_aspect_ratio": "anyres"}, r"config.json.*vision_aspect_ratio"),
        ("config.json", {"vision_aspect_ratio": "anyres_max_9"}, r"processor_config.json.*vision_aspect_ratio"),
        ("config.json", {"vision_feature_select_strategy": "default"}, r"config.json.*select_strategy"),
        ("preprocessor_config.json", {"do_center_crop": True}, r"preprocessor_config.json.*do_center_crop"),
        ("preprocessor_config.json", {"size": {"height": 64, "width": 64}}, r"preprocessor_config.json"),
    ],
)
def test_hostile_settings_name_file_and_field(
    checkpoint: Path, tmp_path: Path, file: str, change: dict, says: str
) -> None:
    check_refused(open_checkpoint(changed_copy(checkpoint, tmp_path, file, change)), says)


def test_a_count_of_the_processor_is_told_and_the_models_taken(checkpoint: Path, tmp_path: Path) -> None:
    changed_copy(checkpoint, tmp_path, "processor_config.json", {"num_image_tokens": 17})
    plain, opened = open_checkpoint(checkpoint), open_checkpoint(tmp_path)
    family = find_family(opened)
    assert family.vision(opened) == family.vision(plain)
    (told,) = set(family.decided(opened)) - set(family.decided(plain))
    assert "num_image_tokens" in told and "17" in told
