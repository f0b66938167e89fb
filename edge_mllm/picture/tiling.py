"""8-bit RGB to the tower's input, bit for bit as the model's own processor does it.

Resampling is Pillow's, on 8-bit values between all steps, because that is what the reference does; geometry comes
from :mod:`edge_mllm.picture.tile_plan`.

The bits are those of the reference with the same Pillow. Pillow 13 resamples columns before rows where the height
shrinks by more than twice what the width does, earlier versions always rows first: the global tile of a picture about
twice as tall as wide then differs by up to two of 256 levels in 2 % of its values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_mllm.arrays import RgbArray
from edge_mllm.bundle.spec import ImageSpec, VisionSpec
from edge_mllm.errors import ImageError
from edge_mllm.picture.patches import pack_patches
from edge_mllm.picture.tile_plan import Resize, Step, TilePlan, plan_tiles

Pixels = RgbArray | Image.Image
"""A decoded picture: uint8 [height, width, 3], or an image in RGB, of which less memory is needed to cut it."""
_PIXEL = 4
"""Bytes of a pixel in an image."""
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


@dataclass(frozen=True, kw_only=True)
class Preprocessed:
    """One picture, ready for the tower."""

    pixels: npt.NDArray[np.float32]
    """float32 [tiles, 3, tile height, tile width], normalised, in the order the prompt names the tiles; for a tower
    that takes any size [patches of all tiles, values of a patch], see :mod:`edge_mllm.picture.patches`."""
    plan: TilePlan
    tokens: int
    """Visual tokens of all tiles together."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles, the global tile not counted; (1, 1) for a picture of one tile."""
        return self.plan.rows, self.plan.cols

    @property
    def has_global(self) -> bool:
        """Whether one tile shows the whole picture."""
        return self.plan.has_global

    @property
    def tiles(self) -> int:
        """Number of tiles, the global one included."""
        return self.plan.count

    @property
    def width(self) -> int:
        """Width of the source picture in pixels."""
        return self.plan.width

    @property
    def height(self) -> int:
        """Height of the source picture in pixels."""
        return self.plan.height


def cut_tiles(
    rgb: Pixels,
    image: ImageSpec,
    vision: VisionSpec,
    plan: TilePlan | None = None,
) -> Preprocessed:
    """Tile one picture.

    Args:
        rgb: uint8 [height, width, 3] or an RGB image, as :mod:`edge_mllm.picture.image` gives them.
        image: The model's image processing.
        vision: The tower's contract.
        plan: How; None is what the model's own tiler plans.

    Raises:
        ImageError: The array is not uint8 [height, width, 3] or the picture cannot be tiled.
    """
    if isinstance(rgb, np.ndarray) and (rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3):
        raise ImageError("array", f"it is {rgb.dtype} {list(rgb.shape)}, expected uint8 [height, width, 3]")
    width, height = size_of(rgb)
    plan = plan_tiles(width, height, image.tiler) if plan is None else plan
    if (plan.width, plan.height) != (width, height):
        raise ImageError("array", f"it is {width}x{height}, and its tiles are planned for {plan.width}x{plan.height}")
    if vision.patches is None:
        pixels = tile_pixels(rgb, plan, image)
        pixels = pixels[plan.places] if plan.skipped else pixels
    else:
        tiles = each_tile(rgb, plan, image)
        pixels = np.concatenate([pack_patches(tiles[place], vision.patches) for place in plan.places])
    return Preprocessed(pixels=pixels, plan=plan, tokens=plan.tokens(vision.tokens_per_tile))


def size_of(rgb: Pixels) -> tuple[int, int]:
    """Width and height."""
    return rgb.size if isinstance(rgb, Image.Image) else (rgb.shape[1], rgb.shape[0])


def cutting_bytes(plan: TilePlan) -> int:
    """The most that carrying out a plan takes at one time beside the picture itself.

    Resampling makes rows of the new width, or columns of the new height, of the whole picture first.
    """

    def most(steps: Iterable[Step], width: int, height: int) -> tuple[int, int, int]:
        peak = 0
        for step in steps:
            between = max(step.width * height, width * step.height) if isinstance(step, Resize) else width * height
            peak = max(peak, _PIXEL * (between + step.width * step.height))
            width, height = step.width, step.height
        return peak, width, height

    peak, width, height = most(plan.steps, plan.width, plan.height)
    canvas = _PIXEL * width * height if plan.steps else 0
    source = (plan.width, plan.height) if plan.global_from_picture else (width, height)
    whole, _, _ = most(plan.global_steps or (), *source)
    sizes = [plan.tile_size, *((step.width, step.height) for step in (plan.global_steps or ())[-1:])]
    tile = max(wide * high for wide, high in sizes)
    tiles = len(plan.crops) + int(plan.has_global)
    return max(peak, canvas + tiles * _PIXEL * tile + max(whole, tiles * 3 * 4 * tile))


def tile_pixels(rgb: Pixels, plan: TilePlan, image: ImageSpec) -> npt.NDArray[np.float32]:
    """Carry out a plan: float32 [tiles, 3, tile height, tile width] from uint8 [height, width, 3] or an RGB image."""
    tiles = _tile_images(rgb, plan, image)
    table = normalisation_table(image)
    pixels = np.empty((len(tiles), 3, tiles[0].height, tiles[0].width), np.float32)
    for out, tile in zip(pixels, tiles, strict=True):
        _normalise(tile, table, out)
    return pixels


def each_tile(rgb: Pixels, plan: TilePlan, image: ImageSpec) -> list[npt.NDArray[np.float32]]:
    """As :func:`tile_pixels`, for tiles of several sizes: float32 [3, height, width] each."""
    table, found = normalisation_table(image), []
    for tile in _tile_images(rgb, plan, image):
        found.append(np.empty((3, tile.height, tile.width), np.float32))
        _normalise(tile, table, found[-1])
    return found


def _tile_images(rgb: Pixels, plan: TilePlan, image: ImageSpec) -> list[Image.Image]:
    resample = _FILTERS[image.resample]
    picture = rgb if isinstance(rgb, Image.Image) else Image.fromarray(np.ascontiguousarray(rgb))
    canvas = _apply(picture, plan.steps, resample)
    tiles = [_apply(canvas.crop(box), plan.tile_steps, resample) for box in plan.crops]
    if plan.global_steps is not None:
        whole = _apply(picture if plan.global_from_picture else canvas, plan.global_steps, resample)
        tiles.insert(0 if plan.global_first else len(tiles), whole)
    return tiles


def _normalise(tile: Image.Image, table: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    values = np.asarray(tile)
    for channel in range(3):
        np.take(table[channel], values[:, :, channel], out=out[channel], mode="clip")  # faster; all are in range


def normalisation_table(image: ImageSpec) -> npt.NDArray[np.float32]:
    """float32 [3, 256]: what each 8-bit value becomes in each channel.

    The order of roundings is the reference's: scale in float64, round to float32, then subtract and divide in
    float32. A table gives the same bits as computing every pixel and costs a look-up.
    """
    scaled = (np.arange(256, dtype=np.float64) * image.rescale).astype(np.float32)
    mean = np.array(image.mean, np.float32)[:, None]
    std = np.array(image.std, np.float32)[:, None]
    table: npt.NDArray[np.float32] = (scaled - mean) / std
    return table


def _apply(picture: Image.Image, steps: Iterable[Step], resample: Image.Resampling) -> Image.Image:
    for step in steps:
        if isinstance(step, Resize):
            picture = picture.resize((step.width, step.height), resample)
        else:
            padded = Image.new("RGB", (step.width, step.height), step.fill)
            padded.paste(picture, (step.left, step.top))
            picture = padded
    return picture
