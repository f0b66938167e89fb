"""A decoded picture of any mode in 8-bit RGB, by rules 3 to 5 of :mod:`edge_mllm.picture.image`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_mllm.errors import ImageError

_STRIP = 1 << 17
"""Pixels that are worked on together, in whole rows."""


def to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """A decoded picture of any mode in RGB; the same image where it is RGB already.

    Args:
        picture: Loaded.
        name: What to call it in a message.

    Raises:
        ImageError: It has values that are not numbers.
    """
    if picture.mode in ("F", "I") or picture.mode.startswith("I;"):
        return _from_wide_grey(picture, name)
    if "A" in picture.getbands() or "a" in picture.getbands() or picture.info.get("transparency") is not None:
        return _in_strips(picture, lambda strip: _on_white(strip.convert("RGBA")))
    return picture if picture.mode == "RGB" else _in_strips(picture, lambda strip: strip.convert("RGB"))


def _in_strips(picture: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An RGB image of what ``convert`` makes of some rows at a time."""
    whole = Image.new("RGB", picture.size)
    for box in _strips(picture):
        whole.paste(convert(picture.crop(box)), box)
    return whole


def _strips(picture: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of some rows at a time, from top to bottom."""
    rows = max(1, _STRIP // picture.width)
    for top in range(0, picture.height, rows):
        yield 0, top, picture.width, min(top + rows, picture.height)


def _on_white(rgba: Image.Image) -> Image.Image:
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _from_wide_grey(picture: Image.Image, name: str) -> Image.Image:
    """Grey of more than 8 bits; a colour key (PNG tRNS) becomes white."""
    largest = -np.inf
    for box in _strips(picture):
        values = np.asarray(picture.crop(box))
        if not np.isfinite(values).all():
            raise ImageError(name, "it has values that are not numbers")
        largest = max(largest, float(values.max()))
    key = picture.info.get("transparency")
    return _in_strips(picture, lambda strip: _grey(np.asarray(strip), strip.mode, largest, key))


def _grey(values: npt.NDArray[Any], mode: str, largest: float, key: Any) -> Image.Image:
    """8-bit grey of values [rows, columns] of a picture whose largest one is ``largest``."""
    if mode == "F":
        scale = 255.0 if largest <= 1 else 1.0
        grey = np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)
    elif mode == "I" and largest <= 255:
        grey = np.clip(values, 0, 255).astype(np.uint8)
    else:
        grey = (np.clip(values, 0, 65535).astype(np.uint16) >> 8).astype(np.uint8)
    if isinstance(key, int):
        grey[values == key] = 255
    return Image.fromarray(grey).convert("RGB")
