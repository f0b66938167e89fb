"""From any picture to 8-bit RGB, by one written rule.

1. Only the formats listed here are opened; of an animation the first frame counts; colour profiles are ignored.
2. A picture over 200 megapixels is refused before it is decoded.
3. 16-bit grey keeps its high byte (as Pillow does for 16-bit colour). 32-bit integers are read as 16-bit when a value
   is above 255, else as 8-bit. Floats are read as 0..1 when no value is above 1, else as 0..255.
4. Transparency, whether a channel, a palette entry or a colour key, is composited on white, as transformers does.
5. Everything else is Pillow's conversion to RGB (palette, grey, bilevel, CMYK, YCbCr, HSV).
6. EXIF (or XMP) orientation is applied; broken EXIF counts as none.

A large picture is not held in more forms at a time than it must be: it is worked on in strips, and a JPEG file in RGB
that lies upright is never copied. What decoding takes is known before from the file's header (:func:`read_header`).
"""

from __future__ import annotations

import io
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from edge_mllm.arrays import RgbArray
from edge_mllm.errors import ImageError
from edge_mllm.picture.header import PictureHeader, header_of, orientation_of
from edge_mllm.picture.rgb import to_rgb

T = TypeVar("T")
Picture = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]
"""What a caller may hand in as a picture."""

MAX_PIXELS = 200_000_000
"""Largest picture that is decoded; 600 MB as RGB."""

MAX_STREAM = 256 << 20
"""Most bytes that are read from a pipe."""

_COMMON = ("PNG", "JPEG", "GIF", "BMP", "PPM")
_FURTHER = ("WEBP", "TIFF", "AVIF", "JPEG2000", "ICO", "DIB", "QOI")
# A closed list: Pillow also knows formats that start other programs (EPS runs Ghostscript) or that anything matches.
_READABLE = "PNG, JPEG, WebP, GIF, BMP, TIFF, PPM, AVIF, JPEG 2000, ICO and QOI"

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on broken files, beside its own classes.
_DECODING_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, OverflowError, RuntimeError,
    struct.error, MemoryError, Image.DecompressionBombError,
)  # fmt: skip

_limit_lock = threading.Lock()


def read_once(source: Picture) -> Picture:
    """A picture that can be opened twice: what comes through a pipe or from a device is read into memory.

    Raises:
        ImageError: It does not end within :data:`MAX_STREAM` bytes, or cannot be read.
    """
    if not isinstance(source, str | Path) or not _is_stream(source):
        return source
    try:
        with Path(source).open("rb") as stream:
            data = stream.read(MAX_STREAM + 1)
    except OSError as error:
        raise ImageError(f"'{source}'", error.strerror or "it cannot be read") from error
    if len(data) > MAX_STREAM:
        raise ImageError(f"'{source}'", f"it does not end within {MAX_STREAM >> 20} MiB")
    return data


def _is_stream(source: str | Path) -> bool:
    try:
        mode = Path(source).stat().st_mode
    except (OSError, ValueError):  # opening it says why
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def load_rgb(source: Picture) -> RgbArray:
    """Decode a picture; errors as :func:`load_image`.

    Returns:
        uint8 [height, width, 3].
    """
    return np.array(load_image(source), dtype=np.uint8)


def load_image(source: Picture, name: str | None = None) -> Image.Image:
    """Decode a picture.

    Args:
        source: A path, the bytes of a file, a PIL image, or a uint8 array [height, width, 3].
        name: What to call it in a message; None for its path or its kind.

    Returns:
        An upright RGB image of its own, which takes four bytes a pixel.

    Raises:
        ImageError: The picture cannot be read; the message names the source and says why.
    """
    if isinstance(source, np.ndarray):
        return Image.fromarray(_checked_array(source))
    if isinstance(source, Image.Image):
        return _decode(source, name or "given as a PIL image", own=False)
    return _opened(read_once(source), name, partial(_decode, own=True))


def read_header(source: Picture) -> PictureHeader:
    """Size and costs of a picture, from its header; nothing is decoded.

    Raises:
        ImageError: It cannot be read, or is one that :func:`load_image` would refuse for its size.
    """
    if isinstance(source, np.ndarray):
        height, width = _checked_array(source).shape[:2]
        return PictureHeader.plain(width, height)
    if isinstance(source, Image.Image):
        return _header(source, "given as a PIL image")
    return _opened(source, None, _header)


def _header(picture: Image.Image, name: str) -> PictureHeader:
    _check_size(picture, name)
    return header_of(picture)


def _opened(source: Picture, name: str | None, use: Callable[[Image.Image, str], T]) -> T:
    """What ``use`` makes of an opened file."""
    if isinstance(source, bytes):
        return _use_stream(io.BytesIO(source), name or "given as bytes", len(source), use)
    if isinstance(source, str | Path):
        return _use_path(source, name, use)
    raise ImageError("argument", f"{type(source).__name__} is not a path, bytes, PIL image or uint8 array")


def _use_path(source: str | Path, name: str | None, use: Callable[[Image.Image, str], T]) -> T:
    name = name or (f"'{source}'" if len(str(source)) <= 200 else f"'{str(source)[:200]}...'")
    if str(source).startswith(("http://", "https://", "ftp://")):
        raise ImageError(name, "addresses are not fetched; download the picture and give its path")
    if str(source).startswith("data:"):
        raise ImageError(f"'{str(source)[:40]}...'", "data: addresses are not read; give the decoded bytes or a path")
    try:
        size = Path(source).stat().st_size
        with Path(source).open("rb") as stream:
            return _use_stream(stream, name, size, use)
    except FileNotFoundError:
        raise ImageError(name, "no such file") from None
    except IsADirectoryError:
        raise ImageError(name, "it is a directory") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(name, getattr(error, "strerror", None) or str(error)) from error


def _use_stream(stream: IO[bytes], name: str, size: int, use: Callable[[Image.Image, str], T]) -> T:
    if size == 0:
        raise ImageError(name, "the file is empty")
    try:
        with _open(stream) as picture:
            return use(picture, name)
    except UnidentifiedImageError:
        raise ImageError(name, f"it is not a picture in a format that can be read ({_READABLE})") from None
    except ImageError:
        raise
    except _DECODING_ERRORS as error:
        raise _undecodable(name, error) from error


def _open(stream: IO[bytes]) -> Image.Image:
    with _own_limit():
        try:
            return Image.open(stream, formats=_COMMON)
        except UnidentifiedImageError:
            Image.init()
            return Image.open(stream, formats=[name for name in _FURTHER if name in Image.OPEN])


@contextmanager
def _own_limit() -> Iterator[None]:
    """Pillow's limit is a module variable with a warning below it; ours is checked in :func:`_decode`."""
    with _limit_lock:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_size(picture: Image.Image, name: str) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError(name, f"it has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        megapixels = width * height / 1e6
        raise ImageError(name, f"{width}x{height} is {megapixels:.0f} megapixels, the limit is {MAX_PIXELS // 10**6}")


def _decode(picture: Image.Image, name: str, *, own: bool) -> Image.Image:
    """Upright RGB; ``own``: the picture is ours, so it need not be copied."""
    _check_size(picture, name)
    try:
        picture.load()
        method = _TRANSPOSE.get(orientation_of(picture))
        rgb = to_rgb(picture, name)
        if method is not None:
            return rgb.transpose(method)
        return rgb.copy() if rgb is picture and not own else rgb
    except ImageError:
        raise
    except _DECODING_ERRORS as error:
        raise _undecodable(name, error) from error


def _undecodable(name: str, error: BaseException) -> ImageError:
    detail = " ".join(str(error).split()) or type(error).__name__
    return ImageError(name, f"the picture is damaged or of a kind that cannot be read ({detail[:160]})")


def _checked_array(source: npt.NDArray[np.uint8]) -> RgbArray:
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
        found = f"{source.dtype} {list(source.shape)}"
        raise ImageError("array", f"it is {found}, expected uint8 [height, width, 3]")
    height, width = source.shape[:2]
    if width < 1 or height < 1:
        raise ImageError("array", f"it has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise ImageError("array", f"it is over {MAX_PIXELS // 10**6} megapixels")
    return np.ascontiguousarray(source)
