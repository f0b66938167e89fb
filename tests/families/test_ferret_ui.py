"""Ferret-UI: grids, stretched tiles, ids, one map of tokens, tower and both engines against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from family_engines import Engines, check_continuations, check_tower
from family_parity import Pair, check_goldens, check_sizes, compare_pictures, seeded_sizes
from image_settings import picture
from PIL import Image
from tiny_anyres import NEXT_GRIDS
from tiny_ferret_ui import PAPER_GRIDS, make_tiny_ferret_ui

from edge_mllm.bundle.tilers import BestFitGrid, Stitch
from edge_mllm.picture.tile_plan import fit_tiler, low_detail, plan_tiles
from edge_mllm.picture.tiling import cut_tiles
from edge_mllm.tower.stitching import join_tiles
from edge_mllm_export.checkpoint.checkpoint import open_checkpoint
from edge_mllm_export.families.ferret_ui import family as ferret_ui

PUBLISHED = BestFitGrid(tile=336, grids=NEXT_GRIDS, fit="stretch", stitch=Stitch(plain=True))
HALVES = BestFitGrid(tile=336, grids=PAPER_GRIDS, fit="stretch", stitch=Stitch(plain=True))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published tile size, with few tokens a tile."""
    return Pair(make_tiny_ferret_ui(tmp_path_factory.mktemp("tiny") / "ferret336", tile=336, patch=56))


@pytest.mark.parametrize("size", [(1080, 2400), (750, 1334), (2400, 1080), (1334, 750), (5, 900), (640, 480)])
def test_the_papers_halves(size: tuple[int, int]) -> None:
    """A standing screen is cut into upper and lower half, a lying one into left and right, the whole comes first."""
    plan = plan_tiles(*size, HALVES)
    standing = size[1] > size[0]
    assert (plan.rows, plan.cols) == ((2, 1) if standing else (1, 2))
    assert plan.global_first and plan.count == 3
    assert plan.tokens(576) == 1728


def test_grids_equal_the_reference() -> None:
    from transformers.image_processing_utils import select_best_resolution

    points = [[rows * 336, cols * 336] for rows, cols in NEXT_GRIDS]
    for width in (1, 5, 100, 335, 336, 337, 400, 672, 673, 999, 4000):
        for height in (1, 7, 112, 224, 336, 504, 672, 700, 1008, 2016, 3000):
            plan = plan_tiles(width, height, PUBLISHED)
            assert (plan.rows * 336, plan.cols * 336) == select_best_resolution((height, width), points)
            assert plan.tokens(576) == 576 * (1 + plan.rows * plan.cols)


def test_fewer_tiles_on_demand() -> None:
    for most in range(1, 6):
        plan = plan_tiles(1080, 2400, fit_tiler(PUBLISHED, 1080, 2400, most))
        assert plan.count <= most
        assert plan.tokens(576) == 576 * plan.count
    assert plan_tiles(1080, 2400, low_detail(PUBLISHED, 1080, 2400)).count == 1


def test_tokens_follow_the_rows_of_the_screen() -> None:
    """Numbers that say where on the screen a token lies: read row by row they are in order, behind the whole's."""
    plan = plan_tiles(700, 690, PUBLISHED)
    assert (plan.rows, plan.cols) == (2, 2)
    screen = np.arange(36, dtype=np.float32).reshape(6, 6)
    parts = [screen[top : top + 3, left : left + 3].ravel() for top in (0, 3) for left in (0, 3)]
    tiles = np.stack([np.full(9, -1, np.float32), *parts])[..., None]
    assert join_tiles(tiles, plan, None)[:, 0].tolist() == [-1] * 9 + list(range(36))
    alone = plan_tiles(700, 690, low_detail(PUBLISHED, 700, 690))
    assert np.array_equal(join_tiles(tiles[:1], alone, None), tiles[0])


def test_the_references_map_is_ours() -> None:
    import torch

    from edge_mllm_export.families.ferret_ui.model import one_map

    values = np.random.default_rng(0)
    for width, height in [(1, 900), (900, 1), (336, 672), (50, 49), *seeded_sizes(60)]:
        plan = plan_tiles(width, height, PUBLISHED)
        tiles = values.normal(size=(plan.count, 16, 5)).astype(np.float32)
        theirs = one_map(torch.from_numpy(tiles), plan.rows, plan.cols).numpy()
        assert np.array_equal(join_tiles(tiles, plan, None), theirs)


def test_twenty_four_sizes_equal_the_reference(pair: Pair) -> None:
    check_sizes(pair)


@pytest.mark.parametrize("grids", [NEXT_GRIDS, PAPER_GRIDS], ids=["published", "paper"])
def test_pixels_from_transformers_parts(tmp_path: Path, grids: tuple[tuple[int, int], ...]) -> None:
    """The original's steps once more: choose widths and heights, stretch, cut, and let CLIP's processor see each."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    checkpoint = open_checkpoint(make_tiny_ferret_ui(tmp_path / "ferret", tile=336, patch=56, grids=grids))
    clip = CLIPImageProcessorPil(size={"height": 336, "width": 336}, do_center_crop=False)
    for size in [(750, 1334), (33, 32), *seeded_sizes(6, longest=1200)]:
        rgb = picture(*size)
        screen = Image.fromarray(rgb)
        width, height = best_resolution(size, [(cols * 336, rows * 336) for rows, cols in grids])
        large = screen.resize((width, height))
        boxes = [(x, y, x + 336, y + 336) for y in range(0, height, 336) for x in range(0, width, 336)]
        shown = [screen.resize((336, 336)), *(large.crop(box) for box in boxes)]
        expected = np.concatenate([clip(tile, return_tensors="np")["pixel_values"] for tile in shown])
        ours = cut_tiles(rgb, ferret_ui.image_spec(checkpoint), ferret_ui.vision_spec(checkpoint)).pixels
        assert np.array_equal(ours, expected), size


def best_resolution(size: tuple[int, int], points: list[tuple[int, int]]) -> tuple[int, int]:
    """The width and height that keep most of the picture's pixels, of equals the one that wastes least."""

    def kept(point: tuple[int, int]) -> int:
        scale = min(point[0] / size[0], point[1] / size[1])
        return min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])

    return max(points, key=lambda point: (kept(point), -point[0] * point[1]))


def test_goldens(pair: Pair) -> None:
    check_goldens(pair, PUBLISHED)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_with_pictures(pair: Pair, count: int) -> None:
    compare_pictures(pair, count, "Which is larger? <end_of_turn> café [10, 20, 900, 950]")


def test_the_reference_gemma_scales_all_of_its_input(tmp_path: Path) -> None:
    """Today's GemmaModel on rows that are scaled before, pictures among them, as transformers 4.39 did inside."""
    import torch
    from transformers import GemmaModel

    checkpoint = make_tiny_ferret_ui(tmp_path / "ferret")
    model = ferret_ui.model_class().from_pretrained(checkpoint, dtype=torch.float32).eval()
    inner = model.model.language_model
    plain = GemmaModel(inner.config).eval()
    plain.load_state_dict(inner.state_dict())
    rows = torch.randn(1, 7, 64, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[3, 200, 5]])
    with torch.inference_mode():
        assert torch.equal(inner(inputs_embeds=rows)[0], plain(inputs_embeds=rows * 8.0)[0])
        assert torch.equal(inner(input_ids=ids)[0], plain(input_ids=ids)[0])
        assert torch.equal(model.lm_head.weight, inner.embed_tokens.weight)


@pytest.fixture(scope="module", params=["gemma", "llama"])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    checkpoint = make_tiny_ferret_ui(tmp_path_factory.mktemp("tiny") / request.param, llama=request.param == "llama")
    return Engines(checkpoint, tmp_path_factory.mktemp("bundle") / "ferret.edge")


def test_tower_equals_torch(engines: Engines) -> None:
    check_tower(engines)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_greedy_continuations_are_the_references(engines: Engines, engine: str) -> None:
    """ggml looks GELU up in a table of half-precision numbers, so llama.cpp's logits of a Gemma are a little away."""
    text = json.loads((engines.source / "config.json").read_text(encoding="utf-8"))["text_config"]
    if (text["model_type"], engine) == ("gemma", "gguf"):
        check_continuations(engines, engine, kl_max=5e-6, worst=0.05)
    else:
        check_continuations(engines, engine)


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_rows_of_embeddings_stand_for_tokens(engines: Engines, engine: str) -> None:
    """Also where the decoder scales rows of pictures as it scales tokens."""
    from edge_mllm.decoders.protocol import Tokens, Visual

    ids = np.arange(3, 40)
    with engines.candidate.model(engine, n_ctx=256, exact=True) as model:
        decoder = model.decoder
        expected = decoder.prefill([Tokens(ids)])
        decoder.truncate(0)
        found = decoder.prefill([Visual(decoder.embed(ids[:-1])), Tokens(ids[-1:])])
    np.testing.assert_allclose(found, expected, atol=1e-4)
