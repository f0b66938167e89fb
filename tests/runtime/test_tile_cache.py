"""A changed picture costs its changed tiles, and what the decoder gets is bit for bit what a cold run gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_makers import make_tiny

import edge_mllm
from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.pictures.bundle_picture import prepare_pictures
from edge_mllm.answer.timings import Stopwatch
from edge_mllm_export.options import ExportOptions
from edge_mllm_export.pipeline import export_bundle

FAMILIES = ("idefics3", "internvl", "llava_next", "llava_onevision")
"""Tiles before a global one, after it, and two that are stitched."""
EDITS = 12


@pytest.fixture(scope="module", params=FAMILIES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tiles")
    options = ExportOptions(format="onnx", quant="f32", vision="int8", verify=False, calibration=False)
    export_bundle(str(make_tiny(request.param, home)), home / "tiny.edge", options)
    return home / "tiny.edge"


def screen(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (230, 250, 3), dtype=np.uint8)


def rows(model: edge_mllm.Model, picture: np.ndarray) -> np.ndarray:
    """What the decoder of a model gets of a picture, through its caches."""
    (part,) = prepare_pictures([picture], model.spec, ImageBudget())
    return model._encoder.embeddings(part, Stopwatch())


def edited(draw: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """A copy with a small block of other pixels."""
    top, left = draw.integers(0, 220), draw.integers(0, 240)
    changed = picture.copy()
    changed[top : top + 8, left : left + 8] = draw.integers(0, 256, 3, dtype=np.uint8)
    return changed


def test_edits_are_bit_equal_and_cost_their_tiles(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, picture = np.random.default_rng(7), screen()
    with edge_mllm.load(bundle, threads=1) as model, edge_mllm.load(bundle, threads=1, cache_bytes=0) as cold:
        first = model.generate("What?", picture, max_new_tokens=1)
        tiles = first.images[0].tiles
        assert tiles > 2 and first.images[0].tiles_reused == 0
        run: list[int] = []
        encode = model._tower.encode

        def counted(pixels: np.ndarray, *rest: Any) -> Any:
            run.append(len(pixels))
            return encode(pixels, *rest)

        monkeypatch.setattr(model._tower, "encode", counted)
        reused = []
        for _ in range(EDITS):
            picture = edited(draw, picture)
            assert np.array_equal(rows(model, picture), cold.encode(picture))
            answer = model.generate("What?", picture, max_new_tokens=2)
            assert answer.text == cold.generate("What?", picture, max_new_tokens=2).text
            reused.append(tiles - run[-1])
        assert max(reused) > 0 and len(run) == EDITS


def test_equal_tiles_of_a_picture_are_run_once(bundle: Path) -> None:
    grey = np.full((230, 250, 3), 128, np.uint8)
    with edge_mllm.load(bundle, threads=1) as model, edge_mllm.load(bundle, threads=1, cache_bytes=0) as cold:
        (usage,) = model.generate("What?", grey, max_new_tokens=1).images
        assert usage.tiles_reused >= usage.tiles - 3  # padding makes some of them differ
        assert np.array_equal(rows(model, grey), cold.encode(grey))


def test_tiles_are_found_on_disk_by_the_next_process(bundle: Path, tmp_path: Path) -> None:
    draw, picture = np.random.default_rng(3), screen(1)
    with edge_mllm.load(bundle, threads=1, cache_dir=tmp_path) as model:
        model.generate("What?", picture, max_new_tokens=1)
    changed = edited(draw, picture)
    with edge_mllm.load(bundle, threads=1, cache_dir=tmp_path) as model, edge_mllm.load(bundle, threads=1) as cold:
        (usage,) = model.generate("What?", changed, max_new_tokens=1).images
        assert usage.source == "tower" and 0 < usage.tiles_reused < usage.tiles
        assert np.array_equal(rows(model, changed), cold.encode(changed))
        (again,) = model.generate("What else?", changed, max_new_tokens=1).images
        assert again.tiles_reused == 0 and again.source != "tower"
