"""Pictures that are too large for the heap are decoded by halves, and say so."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from android.conftest import ROOT
from PIL import Image

_LABEL = ROOT / "starter" / "demo" / "label.png"


def _core(script: Path, heap: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGE_MLLM_JAVA": f"-Xmx{heap}"}
    return subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=False)


def _enlarged(file: Path, width: int, height: int, mode: str = "RGB") -> Image.Image:
    picture = Image.open(_LABEL).convert(mode).resize((width, height), Image.Resampling.BICUBIC)
    picture.save(file)
    return picture


@pytest.mark.slow
def test_108_megapixels_in_300_mb(core_script: Path, tmp_path: Path) -> None:
    """The answer is that of the small picture; the picture is a quarter as wide and as high."""
    file = tmp_path / "camera.jpg"
    _enlarged(file, 12_000, 9_000)
    done = _core(core_script, "300m", "run", "-i", file, "What does it say?")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["text"] == " Coffee $4.60"
    assert (answer["images"][0]["width"], answer["images"][0]["height"]) == (3_000, 2_250)
    assert "12000x9000 pixels are too many for this process; decoded at 1/4 of the size, 3000x2250" in done.stderr


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_square_becomes_its_mean(core_script: Path, tmp_path: Path, mode: str) -> None:
    """As Pillow's reduce, but for what the two JPEG decoders do not agree on; sides that are no multiples too."""
    file, small, found = tmp_path / "large.jpg", tmp_path / "small.png", []
    _enlarged(file, 3_001, 2_003, mode)
    Image.open(file).reduce(2).convert("RGB").save(small)
    for heap, path in (("64m", file), ("512m", small)):
        out = tmp_path / "pixels.npy"
        done = _core(core_script, heap, "pixels", "-i", path, "-o", out)
        assert done.returncode == 0, done.stderr
        assert ("decoded at 1/2 of the size, 1501x1002" in done.stderr) == (path == file)
        found.append(np.load(out))
    assert found[0].shape == found[1].shape
    assert np.abs(found[0] - found[1]).max() < 6 / 127.5 and np.abs(found[0] - found[1]).mean() < 0.5 / 127.5


def test_what_cannot_be_made_smaller_is_refused(core_script: Path, tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    _enlarged(file, 5_000, 4_000)
    done = _core(core_script, "64m", "pixels", "-i", file)
    assert done.returncode == 1 and "there is not enough memory to decode it" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
