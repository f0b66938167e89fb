"""The goldens, which other runtimes (the phone's) read too; no reference library is needed here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bundle_specs import LAYOUT
from image_settings import SETTINGS, Settings, picture

from edge_mllm.picture.tile_plan import TilePlan, plan_tiles
from edge_mllm.picture.tiling import cut_tiles
from edge_mllm.prompt.build import picture_text

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def test_the_goldens_say_what_made_them() -> None:
    for name in ("grids.json", "pixels.json", "layouts.json"):
        assert {"reference", "transformers", "pillow", "numpy"} <= golden(name).keys()
        assert "Pil" in golden(name)["reference"]
    for name in ("grids.json", "pixels.json"):
        assert [Settings(**entry["settings"]) for entry in golden(name)["entries"]] == list(SETTINGS)


@pytest.mark.parametrize("number", range(len(SETTINGS)), ids=[settings.name for settings in SETTINGS])
def test_grids(number: int) -> None:
    entry = golden("grids.json")["entries"][number]
    settings = Settings(**entry["settings"])
    assert len(entry["grids"]) == 75
    for row in entry["grids"]:
        plan = plan_tiles(*row["size"], settings.image.tiler)
        steps = [[step.width, step.height] for step in (*plan.steps, *(plan.global_steps or ()))]
        assert (plan.rows, plan.cols, plan.count, steps) == (row["rows"], row["cols"], row["tiles"], row["resizes"])
        assert plan.count * settings.tokens == row["tokens"]


@pytest.mark.parametrize("number", range(len(SETTINGS)), ids=[settings.name for settings in SETTINGS])
def test_pixels(number: int) -> None:
    entry = golden("pixels.json")["entries"][number]
    settings = Settings(**entry["settings"])
    for row in entry["pictures"]:
        rgb = picture(*row["size"])
        assert sha256(rgb) == row["rgb"], "the test picture itself is another one"
        pixels = cut_tiles(rgb, settings.image, settings.vision).pixels
        assert list(pixels.shape) == row["shape"]
        assert sha256(pixels) == row["pixels"], row["size"]


def test_layouts() -> None:
    document = golden("layouts.json")
    spec = SimpleNamespace(layout=LAYOUT, image_token="<image>")
    assert len(document["texts"]) == 4
    for row in document["texts"]:
        rows, cols = row["grid"]
        box = ((0, 0, 1, 1),)
        plan = TilePlan(
            width=1,
            height=1,
            steps=(),
            crops=box * max(rows * cols, 1),
            rows=max(rows, 1),
            cols=max(cols, 1),
            global_steps=() if rows else None,
        )
        assert picture_text(plan, spec, document["visual_tokens"]) == row["text"]
