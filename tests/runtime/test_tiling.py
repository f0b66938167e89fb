"""Tiles against transformers' PIL processor: equal means bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_settings import SETTINGS, Settings, picture, reference_tiles, sizes
from parity_pixels import Pair
from PIL import Image

from edge_mllm.bundle.spec import ImageSpec
from edge_mllm.bundle.tilers import LongestEdgeGrid
from edge_mllm.errors import ImageError
from edge_mllm.picture.tile_plan import Pad, Resize, TilePlan, fit_tiler, plan_tiles
from edge_mllm.picture.tiling import cut_tiles, normalisation_table, tile_pixels

SEEDED = sizes(24, seed=20, longest=1600)
EDGES = [(1, 1), (20, 1), (1, 20), (2000, 100), (100, 2000), (4000, 3000)]


def by_name(settings: Settings) -> str:
    return settings.name


@pytest.fixture(scope="module", params=SETTINGS, ids=by_name)
def pair(request: pytest.FixtureRequest, tiny_smolvlm: Path) -> Pair:
    return Pair(request.param, tiny_smolvlm)


@pytest.mark.parametrize("size", SEEDED + EDGES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_pixels_and_token_ids_equal_the_reference(pair: Pair, size: tuple[int, int]) -> None:
    found = pair.compare(picture(*size))
    assert found.pixels_equal
    assert found.ids_equal
    assert found.ours.pixels.dtype == np.float32
    assert found.ours.has_global
    assert (found.ours.width, found.ours.height) == size
    assert found.ours.tokens == len(found.ours.pixels) * pair.settings.tokens


@pytest.mark.parametrize("settings", SETTINGS, ids=by_name)
@pytest.mark.parametrize("size", [(1, 1), (640, 480), (90, 1000)], ids=str)
def test_a_single_tile_equals_the_reference_without_splitting(settings: Settings, size: tuple[int, int]) -> None:
    rgb = picture(*size)
    expected, grid = reference_tiles(settings.reference(do_image_splitting=False), rgb)
    tiler = fit_tiler(settings.image.tiler, *size, max_tiles=1)
    ours = cut_tiles(rgb, settings.image, settings.vision, plan_tiles(rgb.shape[1], rgb.shape[0], tiler))
    assert grid == (0, 0)
    assert (ours.grid, ours.has_global, ours.tiles) == ((1, 1), False, 1)
    assert np.array_equal(ours.pixels, expected)


def test_a_coarser_tiling_equals_the_reference_with_a_smaller_longest_edge() -> None:
    settings, rgb = SETTINGS[0], picture(900, 700)
    tiler = fit_tiler(settings.image.tiler, 900, 700, max_tiles=8)
    expected, grid = reference_tiles(settings.reference(size={"longest_edge": tiler.longest_edge}), rgb)
    ours = cut_tiles(rgb, settings.image, settings.vision, plan_tiles(rgb.shape[1], rgb.shape[0], tiler))
    assert tiler.longest_edge == 1024
    assert ours.grid == grid == (2, 2)
    assert np.array_equal(ours.pixels, expected)


@pytest.mark.parametrize("resample", [0, 1, 2, 3, 4, 5])
def test_every_filter_equals_the_reference(resample: int) -> None:
    names = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
    settings, rgb = Settings("tiny", 128, 32, 4), picture(75, 50)
    image = ImageSpec(
        tiler=settings.image.tiler, resample=names[resample], rescale=1 / 255, mean=(0.1,) * 3, std=(0.3,) * 3
    )
    expected, _ = reference_tiles(settings.reference(resample=resample, image_mean=[0.1] * 3, image_std=[0.3] * 3), rgb)
    assert np.array_equal(cut_tiles(rgb, image, settings.vision).pixels, expected)


def test_channels_have_their_own_mean_and_deviation() -> None:
    settings, rgb = Settings("tiny", 128, 32, 4), picture(60, 90)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = ImageSpec(tiler=settings.image.tiler, resample="lanczos", rescale=1 / 255, mean=mean, std=std)
    expected, _ = reference_tiles(settings.reference(image_mean=list(mean), image_std=list(std)), rgb)
    assert np.array_equal(cut_tiles(rgb, image, settings.vision).pixels, expected)
    assert normalisation_table(image).shape == (3, 256)


def test_an_array_of_another_kind_is_refused() -> None:
    settings = SETTINGS[0]
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ImageError, match="expected uint8"):
            cut_tiles(wrong, settings.image, settings.vision)


def test_a_plan_with_padding_and_the_global_tile_first() -> None:
    """Steps the longest-edge grid does not use, checked against Pillow used directly."""
    rgb = picture(30, 20)
    plan = TilePlan(
        width=30,
        height=20,
        steps=(Resize(24, 16), Pad(24, 24, top=4, fill=(9, 8, 7))),
        crops=((0, 0, 12, 24), (12, 0, 24, 24)),
        rows=1,
        cols=2,
        tile_steps=(Resize(8, 8),),
        global_steps=(Resize(8, 8),),
        global_first=True,
    )
    image = ImageSpec(
        tiler=LongestEdgeGrid(longest_edge=8, tile=8), resample="bicubic", rescale=1.0, mean=(0,) * 3, std=(1,) * 3
    )
    pixels = tile_pixels(rgb, plan, image)
    canvas = Image.new("RGB", (24, 24), (9, 8, 7))
    canvas.paste(Image.fromarray(rgb).resize((24, 16), Image.Resampling.BICUBIC), (0, 4))
    parts = [canvas, canvas.crop((0, 0, 12, 24)), canvas.crop((12, 0, 24, 24))]
    expected = np.stack([np.asarray(part.resize((8, 8), Image.Resampling.BICUBIC)) for part in parts])
    assert (plan.count, plan.tile_size, pixels.shape) == (3, (8, 8), (3, 3, 8, 8))
    assert np.array_equal(pixels, expected.transpose(0, 3, 1, 2).astype(np.float32))
