"""What decoding a picture will take, from its header alone."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

_ORIENTATION = 0x0112
_RGB = 4
"""Bytes that Pillow takes for an RGB pixel."""
_NARROW = {"1": 1, "L": 1, "P": 1, "La": 4, "LA": 4, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Bytes of a pixel in Pillow's images, four in every other mode."""
_WORK = 6 << 20
"""Bytes of strips on their way from one form to another."""
_BESIDE = {"WEBP": 13.0, "AVIF": 6.0, "JPEG2000": 16.0, "TIFF": 6.0, "GIF": 2.0, "QOI": 3.5, "ICO": 8.0, "PPM": 4.0}
"""Bytes of a pixel that a format's decoder takes beside the image it makes, measured with pictures of one strip or tile
(tests/runtime/test_picture_memory.py); none for formats that are read in rows."""


@dataclass(frozen=True)
class PictureHeader:
    """A picture that is not decoded yet."""

    width: int
    """In pixels, upright as far as the header tells."""
    height: int
    held_bytes: int
    """Memory of the decoded picture."""
    decoding_bytes: int
    """The most that decoding it takes at one time, the decoded picture among it."""

    @staticmethod
    def plain(width: int, height: int) -> PictureHeader:
        """Of pixels that need not be decoded."""
        return PictureHeader(width, height, _RGB * width * height, _RGB * width * height)


def header_of(picture: Image.Image) -> PictureHeader:
    """Of an opened picture, or of one in memory."""
    width, height = picture.size
    orientation = orientation_of(picture) if _tells_orientation(picture) else 1
    stored = _NARROW.get(picture.mode, 4)
    opened = picture.format is not None and not _loaded(picture)
    alpha = "A" in picture.getbands() or picture.info.get("transparency") is not None
    copied = picture.mode != "RGB" or alpha or not opened
    most = max(stored * opened + _beside(picture) * opened, stored * opened + _RGB * copied)
    if orientation in range(2, 9):
        most = max(most, 2 * _RGB)
    if orientation in range(5, 9):
        width, height = height, width
    return PictureHeader(width, height, _RGB * width * height, int(max(most, _RGB) * width * height) + _WORK)


def orientation_of(picture: Image.Image) -> int:
    """EXIF (or XMP) orientation 1 to 8; 1 where there is none that can be read."""
    try:
        found = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever Pillow's reader of broken EXIF raises
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _tells_orientation(picture: Image.Image) -> bool:
    """A PNG file may have its EXIF after the pixels, and Pillow decodes them to look."""
    return picture.format != "PNG" or "exif" in picture.info or _loaded(picture)


def _loaded(picture: Image.Image) -> bool:
    return getattr(picture, "_im", None) is not None


def _beside(picture: Image.Image) -> float:
    """Bytes of a pixel that decoding takes beside the image itself."""
    if picture.format in ("JPEG", "MPO") and picture.info.get("progressive"):
        # libjpeg holds all coefficients of such a file, two bytes each.
        sampling = [(entry[1], entry[2]) for entry in getattr(picture, "layer", ())]
        largest = max((across * down for across, down in sampling), default=1)
        return float(2.1 * sum(across * down / largest for across, down in sampling))
    return _BESIDE.get(picture.format or "", 0.0)
