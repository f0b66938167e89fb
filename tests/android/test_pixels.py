"""Plans, resampling and pixels of the phone's code: bit for bit those of the Python runtime, for every tiler."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from android.conftest import Core
from android.tilers_of_all_kinds import RESAMPLES, TILERS, settings
from image_settings import picture, sizes
from PIL import Image

from edge_mllm.bundle.tilers import Tiler
from edge_mllm.errors import EdgeMLLMError
from edge_mllm.picture.image import load_rgb
from edge_mllm.picture.tile_plan import TilePlan, fit_tokens, low_detail, plan_tiles
from edge_mllm.picture.tile_plans.steps import Resize
from edge_mllm.picture.tiling import cut_tiles
from edge_mllm.typed_json import plain

_EDGES = [
    (1, 1),
    (1, 2),
    (2, 1),
    (640, 480),
    (480, 640),
    (1024, 1024),
    (1, 300),
    (300, 1),
    (65_536, 65_536),
    (65_537, 1),
]


def _document(spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = plain(dataclasses.asdict(spec))
    return found


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _described(plan: TilePlan) -> str:
    """As core writes a plan."""

    def steps(found: Any) -> str:
        if found is None:
            return "[-]"
        return "[" + "".join(_step(step) for step in found) + "]"

    grid = f"{plan.token_grid[0]}t{plan.token_grid[1]}" if plan.token_grid else ""
    flags = "".join(str(flag).lower() for flag in (plan.global_first, plan.global_from_picture))
    boxes = "".join(f"{side}," for box in plan.crops for side in box)
    shown = f"{steps(plan.steps)}{steps(plan.tile_steps)}{steps(plan.global_steps)}"
    return f"{plan.rows}x{plan.cols}{flags}{shown}{boxes}{grid}"


def _step(step: Any) -> str:
    if isinstance(step, Resize):
        return f"r{step.width}x{step.height}+0+0;"
    return f"p{step.width}x{step.height}+{step.left}+{step.top};"


def _expected(size: tuple[int, int], tiler: Tiler, tokens: int, how: Any) -> str:
    try:
        plan = plan_tiles(*size, how(tiler, size))
    except EdgeMLLMError as error:
        return str(error)
    return f"{_described(plan)} {plan.count} {plan.tokens(tokens)}"


@pytest.mark.parametrize("name", TILERS)
def test_plans_of_many_sizes(core: Core, name: str) -> None:
    """The model's own tiling, low detail, and a limit on tokens: steps, crops, tokens, and refusals word for word."""
    tiler, tokens = TILERS[name]
    image, vision = settings(name)
    found = [*_EDGES, *sizes(200, seed=len(name), longest=6000)]
    asked = {"image": _document(image), "vision": _document(vision), "sizes": found}

    def compare(how: Any, **more: Any) -> None:
        plans = core.ask("plans", **asked, **more)["plans"]
        expected = [_expected(size, tiler, tokens, how) for size in found]
        for size, ours, theirs in zip(found, plans, expected, strict=True):
            assert ours == theirs, size

    compare(lambda tiler, size: fit_tokens(tiler, size, 2**31 - 1, tokens))
    compare(lambda tiler, size: low_detail(tiler, *size), low=True)
    compare(lambda tiler, size: fit_tokens(tiler, size, 5 * tokens, tokens), most=5 * tokens)


@pytest.mark.parametrize("resample", RESAMPLES)
def test_resampling_is_pillows(core: Core, resample: str, tmp_path: Path) -> None:
    """Up and down, both orders of the passes, one side alone: every byte."""
    pairs = [((64, 48), (64, 48)), ((64, 48), (64, 20)), ((64, 48), (30, 48)), ((1, 1), (9, 7)), ((100, 400), (90, 40))]
    rng = random.Random(resample)
    sides = iter([rng.randint(1, 200) for _ in range(80)])
    pairs += [((next(sides), next(sides)), (next(sides), next(sides))) for _ in range(20)]
    for number, (old, new) in enumerate(pairs):
        file = tmp_path / f"{number}.png"
        Image.fromarray(picture(*old)).save(file)
        expected = Image.fromarray(picture(*old)).resize(new, Image.Resampling[resample.upper()])
        reply = core.ask("resize", image=str(file), filter=resample, size=list(new))
        assert reply.get("sha256") == _sha256(np.asarray(expected)), (old, new, reply)


@pytest.mark.parametrize("name", TILERS)
def test_pixels_of_every_tiler(core: Core, name: str, tmp_path: Path) -> None:
    """What the tower gets, normalised or packed: no bit is another one."""
    rng = random.Random(name)
    for number, size in enumerate([(97, 61), (64, 200), *sizes(4, seed=len(name), longest=500)]):
        image, vision = settings(name, rng.choice(RESAMPLES))
        rgb = picture(*size, seed=number)
        file = tmp_path / f"{number}.png"
        Image.fromarray(rgb).save(file, compress_level=1)
        asked = {"image": _document(image), "vision": _document(vision), "file": str(file)}
        try:
            expected = cut_tiles(rgb, image, vision).pixels
        except EdgeMLLMError as error:
            assert core.ask("pixels", **asked)["error"] == str(error)
            continue
        reply = core.ask("pixels", **asked)
        assert reply.get("shape") == str(expected.shape), reply
        assert reply["sha256"] == _sha256(expected), (size, image.resample)


def _files(folder: Path) -> list[Path]:
    """PNG files of every kind: depths, palettes, transparency, interlacing, orientation."""
    rgb = Image.fromarray(picture(37, 23))
    grey, alpha = rgb.convert("L"), Image.fromarray(picture(37, 23, seed=5)[:, :, 0])
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    wide = Image.fromarray(np.arange(37 * 23, dtype=np.uint16).reshape(23, 37) * 77)
    palette = rgb.quantize(11)
    clear = rgb.quantize(200)
    kinds = {
        "rgb": (rgb, {}),
        "grey": (grey, {}),
        "rgba": (rgba, {}),
        "grey-alpha": (rgba.convert("LA"), {}),
        "bilevel": (grey.convert("1"), {}),
        "bilevel-key": (grey.convert("1"), {"transparency": 0}),
        "grey-key": (grey, {"transparency": int(np.asarray(grey)[3, 3])}),
        "rgb-key": (rgb, {"transparency": tuple(int(value) for value in np.asarray(rgb)[2, 2])}),
        "wide": (wide, {}),
        "palette": (palette, {}),
        "palette-2": (rgb.quantize(3), {"bits": 2}),
        "palette-1": (rgb.quantize(2), {"bits": 1}),
        "palette-entry": (palette, {"transparency": 3}),
        "palette-alphas": (clear, {"transparency": bytes(range(200))}),
    }
    files = []
    for name, (image, options) in kinds.items():
        files.append(folder / f"{name}.png")
        image.save(files[-1], **options)
    for orientation in range(1, 10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files.append(folder / f"exif-{orientation}.png")
        rgb.save(files[-1], exif=exif)
    return files


def test_png_files_of_every_kind(core: Core, tmp_path: Path) -> None:
    for file in _files(tmp_path):
        rgb = load_rgb(file)
        reply = core.ask("rgb", image=str(file))
        assert (reply.get("size"), reply.get("sha256")) == ([rgb.shape[1], rgb.shape[0]], _sha256(rgb)), (file, reply)


def test_interlaced_and_deep_png_files(core: Core, tmp_path: Path) -> None:
    """What Pillow reads but does not write: Adam7, 16 bits a channel, grey of 2 and 4 bits."""
    from android.png_writer import write_png

    rng = np.random.default_rng(7)
    cases = 0
    for colour, channels in ((0, 1), (2, 3), (3, 1), (4, 2), (6, 4)):
        for depth in (1, 2, 4, 8, 16):
            if depth not in {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(colour, (8, 16)):
                continue
            for interlaced in (False, True):
                for width, height in ((1, 1), (3, 9), (17, 13)):
                    samples = rng.integers(0, 1 << depth, (height, width, channels))
                    file = tmp_path / f"{cases}.png"
                    write_png(file, samples, depth, colour, interlaced=interlaced, filters=cases)
                    rgb = load_rgb(file)
                    reply = core.ask("rgb", image=str(file))
                    what = (colour, depth, interlaced, width, height, reply)
                    assert reply.get("sha256") == _sha256(rgb), what
                    cases += 1
    assert cases == 90


def test_damaged_png_files_are_refused(core: Core, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(picture(40, 30)).save(good)
    data = good.read_bytes()
    broken = {"cut": data[:-30], "changed": data[:60] + b"\0\1\2\3" + data[64:], "header": data[:8], "empty": b""}
    for name, content in broken.items():
        file = tmp_path / f"{name}.png"
        file.write_bytes(content)
        error = core.ask("rgb", image=str(file))["error"]
        assert error.startswith(f"cannot use picture '{file}': ") and "\n" not in error, error
    assert core.ask("rgb", image=str(tmp_path / "none.png"))["error"].endswith("no such file")


def test_jpeg_files_are_nearly_the_same(core_script: Path, tmp_path: Path) -> None:
    """The JVM's JPEG decoder is not libjpeg-turbo: near, and told in the documentation as near."""
    import subprocess

    file, out = tmp_path / "page.jpg", tmp_path / "pixels.npy"
    Image.open("starter/demo/label.png").convert("RGB").save(file, quality=90)
    subprocess.run([core_script, "pixels", "-i", file, "-o", out], check=True, capture_output=True)
    import edge_mllm

    with edge_mllm.load() as model:
        ours = model.preprocess(file).pixels
    theirs = np.load(out)
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).mean() < 0.01
