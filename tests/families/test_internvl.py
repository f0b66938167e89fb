"""InternVL: grids, pixels, token ids, tower and both engines against transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits
from family_makers import changed_copy
from family_parity import Pair, check_goldens, check_sizes, compare_pictures
from image_settings import picture
from tiny_internvl import make_tiny_internvl

from edge_mllm.bundle.tilers import AspectGrid
from edge_mllm.errors import EdgeMLLMError
from edge_mllm.picture.tile_plan import fit_tiler, plan_tiles
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.registry import find_family

PUBLISHED = AspectGrid(tile=448, max_tiles=12)
GRIDS = {
    (394, 390): (1, 1),
    (380, 76): (5, 1),
    (500, 102): (5, 1),
    (768, 1536): (2, 4),
    (1080, 2400): (2, 5),
    (640, 480): (4, 3),
    (1920, 1080): (4, 2),
    (1024, 1024): (3, 3),
    (3000, 4000): (3, 4),
    (2480, 3508): (2, 3),
    (224, 224): (1, 1),
}
"""(width, height) -> columns and rows with at most 12 tiles of 448 px."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_internvl(tmp_path_factory.mktemp("tiny") / "internvl", max_patches=6)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published tile size, with few tokens a tile."""
    return Pair(make_tiny_internvl(tmp_path_factory.mktemp("tiny") / "internvl448", tile=448, patch=56))


def test_the_grid_table_is_the_references() -> None:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    for (width, height), grid in GRIDS.items():
        assert get_optimal_tiled_canvas((height, width), (448, 448), 1, 12) == grid
        plan = plan_tiles(width, height, PUBLISHED)
        assert (plan.cols, plan.rows) == grid
        assert plan.count == grid[0] * grid[1] + (grid != (1, 1))


@pytest.mark.parametrize(("least", "most"), [(1, 12), (1, 6), (2, 10), (1, 1), (3, 5), (1, 40)])
def test_grids_equal_the_reference_on_ties_too(least: int, most: int) -> None:
    """Every ratio of small numbers, so that all exact ties between grids occur."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    tiler = AspectGrid(tile=32, min_tiles=least, max_tiles=most)
    for width in (1, 5, 7, 10, 16, 25, 33, 40, 48, 64, 100, 125, 160, 999):
        for height in (1, 4, 8, 10, 15, 20, 32, 50, 80, 128, 1000):
            plan = plan_tiles(width, height, tiler)
            expected = get_optimal_tiled_canvas((height, width), (32, 32), least, most)
            assert (plan.cols, plan.rows) == expected, (width, height)


def test_a_fitted_grid_keeps_the_limit() -> None:
    for most in range(1, 14):
        assert plan_tiles(640, 480, fit_tiler(PUBLISHED, 640, 480, most)).count <= most
    assert fit_tiler(PUBLISHED, 640, 480, 13) == PUBLISHED
    assert fit_tiler(PUBLISHED, 640, 480, 12).max_tiles == 11
    assert plan_tiles(640, 480, fit_tiler(PUBLISHED, 640, 480, 1)).count == 1


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    check_sizes(pair)


def test_goldens(pair: Pair) -> None:
    rows = check_goldens(pair, PUBLISHED)
    assert all(row["tiles"] * pair.spec.vision.tokens_per_tile == row["tokens"] for row in rows)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    compare_pictures(pair, count, "Which is larger? <|im_end|> café")


def test_tile_tags_are_text_between_the_tiles(pair: Pair) -> None:
    tagged = Pair(pair.checkpoint.path, tile_tags=True)
    for size in [(448, 448), (900, 448), (500, 1300)]:
        found = tagged.compare([picture(*size)])
        assert found.ids_equal, size
    text = tagged.tokenizer.decode(tagged.compare([picture(900, 448)]).ids.tolist(), skip_special_tokens=False)
    visual = "<IMG_CONTEXT>" * 16
    assert f"<Image><tile_1>{visual}<tile_2>{visual}<tile_global_thumbnail>{visual}</Image>\n" in text


def test_a_token_without_embedding_is_plain_text(pair: Pair) -> None:
    assert "<video>" in (pair.checkpoint.path / "tokenizer.json").read_text(encoding="utf-8")
    n_vocab = pair.family.decoder(pair.checkpoint).n_vocab
    ids = pair.tokenizer.encode("a <video>").ids
    assert max(ids) < n_vocab
    assert pair.tokenizer.decode(ids) == "a <video>"


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "internvl.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine)


def test_four_bit_bundle_with_qwen3_runs_and_is_verified(tmp_path: Path) -> None:
    source = make_tiny_internvl(tmp_path / "source", decoder="qwen3", max_patches=2)
    spec, answers = four_bits(source, tmp_path / "four.edge", tile_tags=True)
    assert spec.prompt.layout.before_tile == "<tile_{index}>"
    assert all(answer.images[0].tiles == 3 for answer in answers)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("preprocessor_config.json", {"size": {"height": 32, "width": 64}}, r"preprocessor_config.json.*size"),
        ("preprocessor_config.json", {"max_patches": 0}, r"preprocessor_config.json.*max_patches"),
        ("config.json", {"downsample_ratio": 0.3}, r"config.json.*downsample_ratio"),
        ("config.json", {"vision_feature_layer": -2}, r"config.json.*vision_feature_layer"),
        ("config.json", {"image_token_id": 7}, r"config.json.*image_token_id"),
    ],
)
def test_hostile_settings_name_file_and_field(
    checkpoint: Path, tmp_path: Path, file: str, change: dict, says: str
) -> None:
    changed_copy(checkpoint, tmp_path, file, change)

    def read() -> None:
        opened = open_checkpoint(tmp_path)
        family = find_family(opened)
        (family.image(opened), family.vision(opened), family.prompt(opened))

    with pytest.raises(EdgeMLLMError, match=says):
        read()
