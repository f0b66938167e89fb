"""BlueLM-V-3B's recipe: the paper's choice of grids, pixels, token ids, tower and both engines against transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from family_engines import Engines, check_continuations, check_tower, four_bits
from family_makers import changed_copy, check_refused
from family_parity import Pair, check_goldens, check_sizes, compare_pictures, seeded_sizes
from tiny_bluelm_v import grid_pinpoints, make_tiny_bluelm_v

from edge_mllm.bundle.tilers import BestFitGrid
from edge_mllm.picture.tile_plan import fit_tiler, plan_tiles
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint


def tiler(side: int, slack: float = 0.1) -> BestFitGrid:
    """Grids of up to ``side`` times ``side`` tiles of 384 px, the largest first."""
    grids = tuple((height // 384, width // 384) for height, width in grid_pinpoints(384, side))
    return BestFitGrid(tile=384, grids=grids, slack=slack)


NINE, SIXTEEN = tiler(3), tiler(4)
EXAMPLES = {(394, 390): (1, 1), (380, 76): (1, 1), (380, 393): (1, 1), (500, 102): (2, 1)}
"""(width, height) -> tiles across and down: the examples of the paper."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bluelm_v(tmp_path_factory.mktemp("tiny") / "bluelm", side=3)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published tile size, with few tokens a tile."""
    return Pair(make_tiny_bluelm_v(tmp_path_factory.mktemp("tiny") / "bluelm384", tile=384, patch=128))


@pytest.mark.parametrize("most", [NINE, SIXTEEN], ids=["9 tiles", "16 tiles"])
def test_the_examples_of_the_paper(most: BestFitGrid) -> None:
    for size, grid in EXAMPLES.items():
        plan = plan_tiles(*size, most)
        assert (plan.cols, plan.rows) == grid, size


def test_a_screenshot_of_the_paper_has_nine_tiles() -> None:
    """Section 4.2: 768x1536 is two by four tiles and a thumbnail, 196 tokens each after the downsampler."""
    plan = plan_tiles(768, 1536, SIXTEEN)
    assert (plan.cols, plan.rows, plan.count, plan.tokens(196)) == (2, 4, 9, 1764)


@pytest.mark.parametrize(("side", "alpha"), [(3, 0.1), (4, 0.1), (4, 0.3), (2, 0.02)])
def test_grids_equal_the_algorithm_of_the_paper(side: int, alpha: float) -> None:
    from edge_mllm_export.families.bluelm_v.processor import relaxed_resolution

    candidates = grid_pinpoints(384, side)
    for width, height in [(1, 1), (1, 3000), (3000, 1), *seeded_sizes(1500, longest=5000)]:
        plan = plan_tiles(width, height, tiler(side, alpha))
        chosen = relaxed_resolution((height, width), candidates, alpha)
        assert [plan.rows * 384, plan.cols * 384] == chosen, (width, height)


def test_slack_never_enlarges_a_grid_that_needs_no_enlarging() -> None:
    """The point of the relaxed choice: fewer tiles than the strict one, never more, on these sizes."""
    strict = BestFitGrid(tile=384, grids=tuple(reversed(NINE.grids)))
    sizes = seeded_sizes(400)
    counts = [(plan_tiles(*size, NINE).count, plan_tiles(*size, strict).count) for size in sizes]
    assert all(relaxed <= own for relaxed, own in counts)
    assert sum(relaxed < own for relaxed, own in counts) >= 5


def test_fewer_tiles_on_demand() -> None:
    for most in range(1, 18):
        plan = plan_tiles(1080, 2400, fit_tiler(SIXTEEN, 1080, 2400, most))
        assert plan.count <= most
        assert plan.count == 1 or plan.global_first


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    check_sizes(pair)


def test_goldens(pair: Pair) -> None:
    check_goldens(pair, SIXTEEN)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    compare_pictures(pair, count, "Which is larger? <|im_end|> café")


def test_four_tokens_become_one() -> None:
    """Three by three tokens with a row and a column of zeros: the four blocks, rows before columns."""
    import torch

    from edge_mllm_export.families.bluelm_v.model import merge_tokens

    merged = merge_tokens(torch.arange(1.0, 10.0).reshape(1, 9, 1), 3)
    assert merged.tolist() == [[[1, 2, 4, 5], [3, 0, 6, 0], [7, 8, 0, 0], [9, 0, 0, 0]]]
    assert merge_tokens(torch.zeros(2, 729, 5), 27).shape == (2, 196, 20)


@pytest.fixture(scope="module")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "bluelm.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    check_continuations(engines, engine)


def test_four_bit_bundle_runs_and_is_verified(checkpoint: Path, tmp_path: Path) -> None:
    spec, answers = four_bits(checkpoint, tmp_path / "four.edge")
    assert "newline" not in spec.parts
    assert all(answer.usage.image_tokens == 4 * answer.images[0].tiles for answer in answers)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("preprocessor_config.json", {"relaxation": 1.5}, r"preprocessor_config.json.*relaxation"),
        ("preprocessor_config.json", {"image_grid_pinpoints": [[24, 25]]}, r"preprocessor_config.json.*pinpoints"),
        ("preprocessor_config.json", {"size": {"height": 48, "width": 48}}, r"preprocessor_config.json"),
        ("config.json", {"vision_feature_select_strategy": "default"}, r"config.json.*select_strategy"),
        ("config.json", {"image_token_index": 7}, r"config.json.*image_token_index"),
    ],
)
def test_hostile_settings_name_file_and_field(
    checkpoint: Path, tmp_path: Path, file: str, change: dict, says: str
) -> None:
    check_refused(open_checkpoint(changed_copy(checkpoint, tmp_path, file, change)), says)
