"""What decoding takes is known before, kept below five bytes a pixel where it can be, and held against limits."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_mllm.picture.header import PictureHeader
from edge_mllm.picture.image import load_rgb, read_header
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm.picture.tiling import cutting_bytes

TESTS = Path(__file__).resolve().parents[1]
SIDE = 1600, 1200
PIXELS = SIDE[0] * SIDE[1]

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="counts peaks as Linux tells them")

MEASURE = """
import json, sys
from pathlib import Path
from edge_mllm.machine.memory import peak_rss_bytes, resident_bytes
from edge_mllm.picture.image import load_image, read_header
small, folder = map(Path, sys.argv[1:])
found = {}
for file in sorted(folder.iterdir()):
    load_image(small / file.name)  # the format's library
    header = read_header(file)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes()
    picture = load_image(file)
    found[file.name] = [header.width, header.height, *picture.size, header.decoding_bytes, peak_rss_bytes() - before]
    del picture
print(json.dumps(found))
"""


def save_all(folder: Path, size: tuple[int, int]) -> Path:
    """A picture in every kind of file."""
    folder.mkdir()
    across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    values = np.stack([across % 256, down % 256, (across + down) % 256], -1).astype(np.uint8)
    rgb, exif = Image.fromarray(values), Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "rgb.png": (rgb, {}), "rgba.png": (rgb.convert("RGBA"), {}), "grey.png": (rgb.convert("L"), {}),
        "palette.png": (rgb.convert("P"), {"transparency": 3}),
        "grey16.png": (Image.fromarray(values[:, :, 0].astype(np.uint16) * 257), {}), "base.jpg": (rgb, {}),
        "turned.jpg": (rgb, {"exif": exif}), "progressive.jpg": (rgb, {"progressive": True}),
        "fine.jpg": (rgb, {"progressive": True, "subsampling": 0}), "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "lossy.webp": (rgb, {"method": 0}), "lossless.webp": (rgb.convert("RGBA"), {"lossless": True, "method": 0}),
        "still.gif": (rgb, {}), "plain.bmp": (rgb, {}), "plain.tiff": (rgb, {}), "plain.ppm": (rgb, {}),
        "strip.tiff": (rgb, {"compression": "tiff_lzw", "tiffinfo": {278: size[1]}}), "plain.jp2": (rgb, {}),
        "float.tiff": (rgb.convert("F"), {}), "plain.avif": (rgb, {"speed": 10}), "plain.qoi": (rgb, {}),
    }  # fmt: skip
    for name, (picture, options) in kinds.items():
        picture.save(folder / name, **options)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return save_all(tmp_path_factory.mktemp("pictures") / "large", SIDE)


def child(*arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_decoding_takes_what_the_header_said(files, tmp_path):
    found = child("-c", MEASURE, save_all(tmp_path / "small", (40, 30)), files)
    assert len(found) == 21
    for name, (width, height, *size, reckoned, measured) in found.items():
        assert [width, height] == size, name
        assert measured <= reckoned * 1.05 + 2e6, (name, reckoned, measured)
        assert reckoned <= 21 * PIXELS + 8e6
    for name, most in {"base.jpg": 4.5, "rgb.png": 4.5, "grey.png": 6, "rgba.png": 9, "turned.jpg": 9}.items():
        assert found[name][-1] < most * PIXELS + 2e6, name
    assert found["progressive.jpg"][-2] > found["base.jpg"][-2] + 2.5 * PIXELS  # told before, as it is
    assert found["turned.jpg"][-2] > found["base.jpg"][-2] + 3.5 * PIXELS


def test_headers_of_what_is_no_file():
    picture = np.zeros((3, 5, 3), np.uint8)
    assert read_header(picture) == PictureHeader(5, 3, 60, 60)
    assert (read_header(Image.fromarray(picture)).width, read_header(Image.new("L", (9, 2))).height) == (5, 2)


def test_strips_give_the_same_pixels(files, monkeypatch):
    whole = {file.name: load_rgb(file) for file in files.iterdir()}
    monkeypatch.setattr("edge_mllm.picture.rgb._STRIP", 3 * SIDE[0] + 1)
    for file in files.iterdir():
        assert np.array_equal(load_rgb(file), whole[file.name]), file.name


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_a_picture_is_refused_before_it_is_decoded(tiny_bundle, files, monkeypatch, engine):
    import edge_mllm
    from edge_mllm.answer.limits import LimitError
    from edge_mllm.answer.pictures import bundle_picture
    from edge_mllm.machine.memory import resident_bytes

    decoded = []
    genuine = bundle_picture.load_image
    monkeypatch.setattr(bundle_picture, "load_image", lambda source: (decoded.append(source), genuine(source))[1])
    with edge_mllm.load(tiny_bundle, engine=engine, threads=1, check_hashes=False) as model:
        limit = (resident_bytes() or 0) + 4 * PIXELS
        plan = model.plan("Hi", [files / "lossy.webp"], max_memory=limit)
        assert plan.memory.peak_bytes > limit and plan.memory.decoding_bytes > 15 * PIXELS
        with pytest.raises(LimitError, match=r"max_memory allows \d+ MB") as caught:
            model.generate("Hi", [files / "lossy.webp"], max_new_tokens=1, max_memory=limit)
        assert "pictures" in str(caught.value)
        assert decoded == []
        assert model.generate("Hi", [files / "lossy.webp"], max_new_tokens=1, max_memory=limit + 10**9).images
        assert len(decoded) == 1


def test_limits_are_kept_in_random_requests(files):
    found = child(TESTS / "memory_requests.py", files, 14, 30)
    assert {"answered", "refused"} == {outcome for *_, outcome in found}
    for name, engine, limit, peak, outcome in found:
        assert peak <= 1.05 * limit, (name, engine, outcome)


def test_cutting_counts_the_rows_that_resampling_makes_first():
    from edge_mllm.bundle.tilers import LongestEdgeGrid

    plan = plan_tiles(8000, 6000, LongestEdgeGrid(longest_edge=1024, tile=512))
    assert cutting_bytes(plan) >= 4 * 1024 * 6000
    assert cutting_bytes(plan_tiles(512, 512, LongestEdgeGrid(longest_edge=512, tile=512))) < 8e6
