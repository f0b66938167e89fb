"""Qwen2-VL: sizes, patches, token ids, positions, tower and both engines against transformers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits
from family_makers import changed_copy, check_refused
from family_parity import Pair, check_native_goldens, check_sizes, compare_pictures
from image_settings import picture
from tiny_qwen2_vl import make_tiny_qwen2_vl

from edge_mllm.answer.budget import ImageBudget, choose_tilers
from edge_mllm.bundle.tilers import NativeResolution
from edge_mllm.errors import BundleError, EngineError, ImageError, PromptError
from edge_mllm.picture.tile_plan import LOW_DETAIL_TOKENS, low_detail, plan_tiles
from edge_mllm.session.files import open_bundle
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.reference.probes import draw_picture

PUBLISHED = NativeResolution(unit=28, min_pixels=3136, max_pixels=12_845_056)
CLASS_DEFAULT = NativeResolution(unit=28, min_pixels=3136, max_pixels=28 * 28 * 1280)
SIZES = {
    (394, 390): (392, 392),
    (380, 76): (392, 84),
    (500, 102): (504, 112),
    (768, 1536): (700, 1400),
    (1080, 2400): (672, 1484),
}
"""(width, height) -> size after resizing with at most 1,280 tokens."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny") / "qwen2-vl")


@pytest.fixture(scope="module")
def pair(checkpoint: Path) -> Pair:
    return Pair(checkpoint)


def test_the_size_table_is_the_references() -> None:
    for size, expected in SIZES.items():
        step = plan_tiles(*size, CLASS_DEFAULT).steps[0]
        assert (step.width, step.height) == expected


@pytest.mark.parametrize(
    "tiler", [PUBLISHED, CLASS_DEFAULT, NativeResolution(unit=56, min_pixels=90_000, max_pixels=400_000)]
)
def test_sizes_equal_the_reference(tiler: NativeResolution) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    rng = random.Random(11)
    for _ in range(1000):
        width = round(20_000 ** rng.random())
        height = max(-(-width // 200), min(20_000, round(width * 190 ** rng.uniform(-1, 1))))
        expected = smart_resize(height, width, tiler.unit, tiler.min_pixels, tiler.max_pixels)
        plan = plan_tiles(width, height, tiler)
        assert (plan.steps[0].height, plan.steps[0].width) == expected, (width, height)
        assert plan.token_grid == (expected[0] // tiler.unit, expected[1] // tiler.unit)
        assert plan.tokens(1) == expected[0] * expected[1] // tiler.unit**2


def test_extreme_ratios_are_refused_as_in_the_reference() -> None:
    assert plan_tiles(1, 200, PUBLISHED).token_grid == (29, 1)
    with pytest.raises(ImageError, match="200 times"):
        plan_tiles(1, 201, PUBLISHED)


@pytest.mark.parametrize("limit", [1, 4, 17, 64, 256, 1000, 5000])
def test_limits_on_tokens_are_kept_and_hardly_wasted(limit: int) -> None:
    sizes = [(4000, 3000), (640, 480)]
    counts = [plan_tiles(*size, PUBLISHED).tokens(1) for size in sizes]
    if limit == 1:
        with pytest.raises(PromptError, match="max_image_tokens allows 1"):
            choose_tilers(sizes, PUBLISHED, 1, ImageBudget(max_image_tokens=limit))
        return
    tilers = choose_tilers(sizes, PUBLISHED, 1, ImageBudget(max_image_tokens=limit))
    found = [plan_tiles(*size, tiler).tokens(1) for size, tiler in zip(sizes, tilers, strict=True)]
    assert sum(found) <= limit
    assert all(1 <= now <= before for now, before in zip(found, counts, strict=True))
    assert limit < 64 or sum(found) > 0.85 * min(limit, sum(counts))


def test_low_detail_is_a_few_tokens() -> None:
    plan = plan_tiles(4000, 3000, low_detail(PUBLISHED, 4000, 3000))
    assert 0.8 * LOW_DETAIL_TOKENS < plan.tokens(1) <= LOW_DETAIL_TOKENS
    assert low_detail(PUBLISHED, 30, 30).min_pixels == PUBLISHED.min_pixels
    with pytest.raises(PromptError, match="15301 visual tokens"):
        choose_tilers([(4000, 3000)], PUBLISHED, 1, ImageBudget(detail="high", max_image_tokens=1000))


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    check_sizes(pair)


def test_goldens(pair: Pair) -> None:
    check_native_goldens(pair, PUBLISHED)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    compare_pictures(pair, count, "Which is larger? <|im_end|> café")


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "qwen2-vl.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


def test_patches_that_do_not_fit_their_grid_are_refused(engines: Engines) -> None:
    tower = engines.candidate.tower
    for patches, grid in ((8, (1, 1)), (0, (0, 0))):
        with pytest.raises(EngineError, match=r"the tower takes float32 \["):
            tower.encode(np.zeros((patches, 1176), np.float32), grids=[grid])
    with pytest.raises(EngineError, match="got 0 tiles"):
        tower.encode(np.zeros((8, 1176), np.float32))
    with pytest.raises(EngineError, match=r"the tower takes float32 \[4"):
        tower.encode(np.zeros((9, 1176), np.float32), grids=[(1, 1), (1, 1)])


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    # llama.cpp's logits are 1e-4 away here even without a picture; ONNX Runtime's 1e-5.
    check_continuations(engines, engine, kl_max=1e-7)


def test_both_engines_answer_alike_and_keep_pictures_between_questions(engines: Engines) -> None:
    rgb = draw_picture(150, 90, seed=3)
    for engine in ("onnx", "gguf"):
        with engines.load(engine) as model:
            chat = model.chat()
            first = chat.ask("What is it?", images=[rgb])
            again = chat.ask("And what else?")
            fresh = model.generate("What is it?", images=[rgb])
            assert first.images[0].tokens == 15
            assert again.usage.prompt_tokens > first.usage.prompt_tokens
            assert fresh.text == first.text
            assert model.preprocess(rgb).pixels.shape == (60, 1176)
            assert model.encode(rgb).shape == (15, 64)
            few = model.generate("What is it?", images=[rgb], max_image_tokens=6, max_new_tokens=2)
            assert few.images[0].tokens == 6


def test_four_bit_bundle_runs_and_is_verified(tmp_path: Path) -> None:
    source = make_tiny_qwen2_vl(
        tmp_path / "source", tied=False, hidden_size=128, intermediate_size=256, rope_scaling=_sections(4, 6, 6)
    )
    out = tmp_path / "four.edge"
    four_bits(source, out)
    damaged = json.loads((out / "bundle.json").read_text(encoding="utf-8"))
    damaged["vision"]["patches"]["patch"] = 7
    (out / "bundle.json").write_text(json.dumps(damaged), encoding="utf-8")
    with pytest.raises(BundleError, match=r"vision\.patches"):
        open_bundle(out)


def _sections(*sizes: int) -> dict[str, object]:
    return {"type": "mrope", "mrope_section": list(sizes)}


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("preprocessor_config.json", {"max_pixels": 100}, r"preprocessor_config.json.*max_pixels"),
        ("preprocessor_config.json", {"min_pixels": 10**9}, r"preprocessor_config.json.*max_pixels"),
        ("preprocessor_config.json", {"patch_size": 16}, r"preprocessor_config.json.*patch_size"),
        ("preprocessor_config.json", {"merge_size": 1}, r"preprocessor_config.json.*merge_size"),
        ("config.json", {"image_token_id": 7}, r"config.json.*image_token_id"),
    ],
)
def test_hostile_settings_name_file_and_field(
    checkpoint: Path, tmp_path: Path, file: str, change: dict, says: str
) -> None:
    check_refused(open_checkpoint(changed_copy(checkpoint, tmp_path, file, change)), says)


def test_sections_are_needed(checkpoint: Path, tmp_path: Path) -> None:
    change = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    opened = open_checkpoint(changed_copy(checkpoint, tmp_path, "config.json", change, "text_config"))
    check_refused(opened, r"config.json.*mrope_section", "decoder")


def test_one_packed_patch_is_both_frames_of_one_square(pair: Pair) -> None:
    rgb = picture(56, 84)
    packed = pair.compare([rgb]).ours[0].pixels.reshape(3, 2, 4, 3, 2, 14, 14)
    assert np.array_equal(packed[..., 0, :, :], packed[..., 1, :, :])
