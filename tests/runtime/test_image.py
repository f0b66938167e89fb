"""Any picture to 8-bit RGB: the written rule, mode by mode, and everything that is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_settings import picture
from PIL import Image, ImageOps

from edge_mllm.errors import ImageError
from edge_mllm.picture import image as image_module
from edge_mllm.picture.image import load_rgb

RGB = picture(17, 11)
GREY = RGB[:, :, 0]
ALPHA = np.arange(17 * 11, dtype=np.uint8).reshape(11, 17)


def saved(picture: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def reference(data: bytes) -> np.ndarray:
    """transformers' conversion of an opened file, after the orientation has been applied."""
    from transformers.image_transforms import convert_to_rgb

    return convert_to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), return_numpy=True)


def palette(transparency: int | bytes | None = None) -> bytes:
    quantised = Image.fromarray(RGB).quantize(16)
    return saved(quantised, "PNG", **({} if transparency is None else {"transparency": transparency}))


FILES = {
    "rgb png": saved(Image.fromarray(RGB), "PNG"),
    "rgb jpeg": saved(Image.fromarray(RGB), "JPEG"),
    "rgb webp": saved(Image.fromarray(RGB), "WEBP"),
    "rgb bmp": saved(Image.fromarray(RGB), "BMP"),
    "rgb tiff": saved(Image.fromarray(RGB), "TIFF"),
    "rgb ppm": saved(Image.fromarray(RGB), "PPM"),
    "rgb ico": saved(Image.fromarray(RGB).resize((16, 16)), "ICO", sizes=[(16, 16)]),
    "rgba png": saved(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG"),
    "rgba webp": saved(Image.fromarray(np.dstack([RGB, ALPHA])), "WEBP", lossless=True),
    "la png": saved(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), "PNG"),
    "l png": saved(Image.fromarray(GREY), "PNG"),
    "l jpeg": saved(Image.fromarray(GREY), "JPEG"),
    "1 png": saved(Image.fromarray(GREY).convert("1"), "PNG"),
    "p png": palette(),
    "p png, one transparent entry": palette(3),
    "p png, alpha per entry": palette(bytes(range(0, 160, 10))),
    "rgb png, colour key": saved(Image.fromarray(RGB), "PNG", transparency=tuple(map(int, RGB[0, 0]))),
    "l png, colour key": saved(Image.fromarray(GREY), "PNG", transparency=int(GREY[0, 0])),
    "cmyk jpeg": saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "cmyk tiff": saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    "ycbcr tiff": saved(Image.fromarray(RGB).convert("YCbCr"), "TIFF"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_become_the_rgb_transformers_makes(name: str) -> None:
    found = load_rgb(FILES[name])
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.array_equal(found, reference(FILES[name]))


def test_lossless_colour_survives_exactly() -> None:
    for name in ("rgb png", "rgb bmp", "rgb tiff", "rgb ppm"):
        assert np.array_equal(load_rgb(FILES[name]), RGB)
    assert np.array_equal(load_rgb(FILES["l png"]), np.repeat(GREY[:, :, None], 3, axis=2))


def test_transparency_is_white() -> None:
    clear = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    clear.putpixel((1, 0), (10, 20, 30, 255))
    assert load_rgb(clear).tolist() == [[[255, 255, 255], [10, 20, 30]]]
    half = Image.new("LA", (1, 1), (0, 128))
    assert load_rgb(half).tolist() == [[[127, 127, 127]]]
    keyed = Image.fromarray(np.array([[5, 6]], np.uint8))
    keyed.info["transparency"] = 5
    assert load_rgb(keyed).tolist() == [[[255] * 3, [6] * 3]]
    premultiplied = Image.fromarray(np.dstack([RGB, ALPHA])).convert("RGBa")
    assert np.array_equal(load_rgb(premultiplied)[0, 0], [255, 255, 255])


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I;16", np.array([[0, 255, 256, 65535]], np.uint16), [0, 0, 1, 255]),
        ("I", np.array([[0, 255, 256, 65535]], np.int32), [0, 0, 1, 255]),
        ("I", np.array([[0, 1, 200, 255]], np.int32), [0, 1, 200, 255]),
        ("I", np.array([[-7, 70000, 512, 0]], np.int32), [0, 255, 2, 0]),
        ("F", np.array([[0, 0.5, 1, -1]], np.float32), [0, 128, 255, 0]),
        ("F", np.array([[0, 0.6, 254.7, 900]], np.float32), [0, 1, 255, 255]),
    ],
    ids=str,
)
def test_wide_grey(mode: str, values: np.ndarray, expected: list[int]) -> None:
    wide = Image.fromarray(values)
    assert wide.mode == mode
    assert load_rgb(wide)[0].tolist() == [[value] * 3 for value in expected]


def test_sixteen_bit_files_keep_the_high_byte() -> None:
    values = np.arange(17 * 11, dtype=np.uint16).reshape(11, 17) * 350
    expected = np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    for form in ("PNG", "TIFF"):
        assert np.array_equal(load_rgb(saved(Image.fromarray(values), form)), expected)
    colour = np.repeat(values[:, :, None], 3, axis=2)
    assert np.array_equal(load_rgb(png16(colour)), expected)


def png16(values: np.ndarray) -> bytes:
    """A 16-bit RGB PNG, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_colour_key_in_sixteen_bit_grey_is_white() -> None:
    wide = Image.fromarray(np.array([[1000, 2000]], np.uint16))
    wide.info["transparency"] = 1000
    assert load_rgb(wide)[0].tolist() == [[255] * 3, [7] * 3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(RGB), "PNG", exif=exif)
    assert np.array_equal(load_rgb(data), reference(data))
    assert (load_rgb(data).shape == RGB.shape) == (orientation < 5)
    assert np.array_equal(load_rgb(data), RGB) == (orientation == 1)


def test_orientation_of_a_grey_picture_with_alpha() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), "PNG", exif=exif)
    assert np.array_equal(load_rgb(data), reference(data))


def test_broken_exif_counts_as_none() -> None:
    data = saved(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert np.array_equal(load_rgb(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(form: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(load_rgb(data), np.broadcast_to(np.uint8([255, 0, 0]), (6, 8, 3)))


def test_every_kind_of_source_gives_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a picture.png"
    file.write_bytes(FILES["rgb png"])
    opened = Image.open(file)
    for source in (file, str(file), FILES["rgb png"], opened, RGB, RGB[::-1][::-1]):
        assert np.array_equal(load_rgb(source), RGB)
    assert load_rgb(RGB[:, ::2]).flags.c_contiguous
    assert np.array_equal(load_rgb(RGB[:, ::2]), RGB[:, ::2])


def test_a_format_is_found_by_its_content_not_its_name(tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(FILES["rgb png"])
    assert np.array_equal(load_rgb(file), RGB)


def refused(source, reason: str) -> str:
    with pytest.raises(ImageError, match=reason) as caught:
        load_rgb(source)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_paths_that_give_no_picture(tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    assert str(missing) in refused(missing, "no such file")
    refused(str(tmp_path), "is a directory")
    refused("https://example.org/a.png", "addresses are not fetched")
    refused("data:image/png;base64,AAAA" * 100, "data: addresses")
    refused("a\0b.png", "null")
    refused("x" * 5000, "name too long")
    (tmp_path / "folder").touch()
    refused(tmp_path / "folder" / "a.png", "Not a directory")


def test_files_that_are_no_picture(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.png", tmp_path / "text.jpg"
    empty.touch()
    text.write_text("This is not a picture.\n" * 50)
    assert str(empty) in refused(empty, "file is empty")
    assert str(text) in refused(text, "not a picture in a format that can be read")
    refused(b"", "given as bytes.*empty")
    refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture")
    refused(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture")


@pytest.mark.parametrize("name", ["rgb png", "rgb jpeg", "rgb webp", "rgb bmp", "rgb tiff", "rgba webp", "p png"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_truncated_files(name: str, share: float) -> None:
    data = FILES[name]
    refused(data[: int(len(data) * share)], "damaged|not a picture")


def test_damaged_files_never_escape_as_another_error() -> None:
    rng = np.random.default_rng(5)
    for data in FILES.values():
        for _ in range(25):
            broken = bytearray(data)
            for place in rng.integers(0, len(data), 8):
                broken[place] = rng.integers(0, 256)
            try:
                found = load_rgb(bytes(broken))
            except ImageError as error:
                assert "\n" not in str(error)
            else:
                assert found.dtype == np.uint8


def huge_png(width: int, height: int) -> bytes:
    return FILES["rgb png"][:16] + struct.pack(">II", width, height) + ihdr_rest(width, height)


def ihdr_rest(width: int, height: int) -> bytes:
    rest = bytes([8, 2, 0, 0, 0])
    crc = zlib.crc32(b"IHDR" + struct.pack(">II", width, height) + rest)
    return rest + struct.pack(">I", crc) + FILES["rgb png"][33:]


def test_huge_pictures_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    refused(huge_png(20_000, 10_001), "20000x10001 is 200 megapixels, the limit is 200")
    refused(huge_png(60_000, 60_000), "3600 megapixels")
    assert Image.MAX_IMAGE_PIXELS is not None  # the library's own limit is back


def test_large_pictures_up_to_the_limit_are_read(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow alone would refuse 187 pixels
    assert np.array_equal(load_rgb(FILES["rgb png"]), RGB)
    assert Image.MAX_IMAGE_PIXELS == 50
    assert not recwarn.list
    monkeypatch.setattr(image_module, "MAX_PIXELS", 186)
    refused(FILES["rgb png"], "the limit is")
    refused(RGB, "megapixels")


def test_pictures_without_pixels() -> None:
    refused(np.zeros((0, 5, 3), np.uint8), "no pixels")
    refused(Image.new("RGB", (0, 3)), "no pixels")
    refused(huge_png(0, 5), "damaged|not a picture|no pixels")
    refused(b"P6 0 5 255\n", "damaged|not a picture|no pixels")


def test_other_things() -> None:
    refused(RGB.astype(np.float32), "float32 .* expected uint8")
    refused(GREY, "expected uint8")
    refused(np.dstack([RGB, ALPHA]), "expected uint8")
    refused(3, "int is not a path")
    refused(None, "NoneType is not a path")
    refused(Image.fromarray(np.array([[np.nan, 1]], np.float32)), "not numbers")
