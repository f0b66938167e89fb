"""The tower's contract: what goes in, what comes out, and towers of another model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundle_specs import N_EMBD, TINY, write_tower
from image_settings import Settings, picture

from edge_mllm.errors import BundleError, EngineError, PartMismatchError, SettingError
from edge_mllm.picture.tiling import cut_tiles
from edge_mllm.tower.tower import VisionTower


@pytest.fixture(scope="module")
def tower_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tower(tmp_path_factory.mktemp("tower") / "vision.onnx")


def expected(pixels: np.ndarray) -> np.ndarray:
    """The tiny tower in numpy: mean of every quarter of a tile, times a matrix."""
    weight = np.random.default_rng(0).normal(size=(3, N_EMBD)).astype(np.float32)
    quarters = pixels.reshape(len(pixels), 3, 2, 16, 2, 16).mean(axis=(3, 5)).reshape(len(pixels), 3, 4)
    return np.einsum("tcq,cn->tqn", quarters, weight)


@pytest.mark.parametrize("tile_batch", [1, 3, 100])
def test_embeddings_of_a_picture(tower_file: Path, tile_batch: int) -> None:
    tiles = cut_tiles(picture(50, 33), TINY.image, TINY.vision)
    tower = VisionTower(tower_file, TINY.vision, N_EMBD, threads=1, tile_batch=tile_batch)
    seen: list[tuple[int, int]] = []
    found = tower.encode(tiles.pixels, progress=lambda done, total: seen.append((done, total)))
    assert found.embeddings.shape == (tiles.tiles, 4, N_EMBD)
    assert found.embeddings.dtype == np.float32
    assert np.allclose(found.embeddings, expected(tiles.pixels), atol=1e-5)
    assert found.rows.shape == (tiles.tokens, N_EMBD)
    assert np.array_equal(found.rows[4:8], found.embeddings[1])
    assert found.seconds > 0
    assert seen[-1] == (tiles.tiles, tiles.tiles)
    assert len(seen) == -(-tiles.tiles // tile_batch)


def test_the_session_is_made_when_it_is_needed(tower_file: Path) -> None:
    tower = VisionTower(tower_file, TINY.vision, N_EMBD)
    assert not tower.loaded
    assert tower.load_seconds == 0
    pixels = np.zeros((1, 3, 32, 32), np.float32)
    first = tower.encode(pixels).embeddings
    assert tower.loaded
    assert tower.load_seconds > 0
    tower.close()
    assert not tower.loaded
    assert np.array_equal(tower.encode(pixels).embeddings, first)
    tower.load()
    assert tower.loaded


def test_pixels_of_another_shape_or_type(tower_file: Path) -> None:
    tower = VisionTower(tower_file, TINY.vision, N_EMBD)
    for shape in ((3, 32, 32), (1, 3, 32, 31), (1, 1, 32, 32), (0, 3, 32, 32)):
        with pytest.raises(EngineError, match=r"float32 \[tiles, 3, 32, 32\]"):
            tower.encode(np.zeros(shape, np.float32))
    with pytest.raises(EngineError, match="float64"):
        tower.encode(np.zeros((1, 3, 32, 32)))
    strided = np.zeros((1, 3, 32, 64), np.float32)[..., ::2]
    assert tower.encode(strided).embeddings.shape == (1, 4, N_EMBD)


def test_towers_that_do_not_belong_to_the_decoder(tmp_path: Path) -> None:
    for name, options, reason in [
        (
            "width",
            {"n_embd": N_EMBD * 2},
            r"do not belong together: its 'embeddings'.*expected tensor\(float\) \[tiles, 4, 16\]",
        ),
        ("tile", {"settings": Settings("other", 128, 64, 4)}, "do not belong together: its 'pixels'"),
        ("tokens", {"settings": Settings("other", 128, 32, 16)}, "do not belong together: its 'embeddings'"),
        ("input", {"names": ("images", "embeddings")}, "should have 'pixels' alone, it has images"),
        ("output", {"names": ("pixels", "hidden")}, "should have 'embeddings' alone, it has hidden"),
        ("fixed", {"tiles": 1}, "fixed number of tiles"),
    ]:
        file = write_tower(tmp_path / f"{name}.onnx", **options)
        tower = VisionTower(file, TINY.vision, N_EMBD)
        with pytest.raises(PartMismatchError, match=reason):
            tower.load()
        assert not tower.loaded


def test_values_that_are_not_numbers(tmp_path: Path) -> None:
    tower = VisionTower(write_tower(tmp_path / "zero.onnx", zero=True), TINY.vision, N_EMBD)
    with pytest.raises(EngineError, match="not numbers"):
        tower.encode(np.ones((1, 3, 32, 32), np.float32))


@pytest.mark.parametrize("content", [b"", b"not a graph", None])
def test_files_that_are_no_graph(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "vision.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BundleError, match="cannot load the vision tower") as caught:
        VisionTower(file, TINY.vision, N_EMBD).load()
    assert "\n" not in str(caught.value)


def test_settings_out_of_range(tower_file: Path) -> None:
    for options in ({"threads": 0}, {"tile_batch": 0}, {"threads": -1}):
        with pytest.raises(SettingError):
            VisionTower(tower_file, TINY.vision, N_EMBD, **options)
