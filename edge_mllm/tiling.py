"""8-bit RGB to the tower's input, bit for bit as the model's own processor does it.

Resampling is Pillow's, on 8-bit values between all steps, because that is what the reference does; geometry comes
from :mod:`edge_mllm.tile_plan`.

The bits are those of the reference with the same Pillow. Pillow 13 resamples columns before rows where the height
shrinks by more than twice what the width does, earlier versions always rows first: the global tile of a picture about
twice as tall as wide then differs by up to two of 256 levels in 2 % of its values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_mllm.bundle import ImageSpec, VisionSpec
from edge_mllm.errors import ImageError
from edge_mllm.patches import pack_patches
from edge_mllm.tile_plan import Pad, Resize, Step, TilePlan, fit_tiler, plan_tiles
from edge_mllm.tilers import Tiler

__all__ = ["Pad", "Preprocessed", "Resize", "TilePlan", "cut_tiles", "fit_tiler", "plan_tiles", "tile_pixels"]

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
    that takes any size [patches, values of a patch], see :mod:`edge_mllm.patches`."""
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
    rgb: npt.NDArray[np.uint8],
    image: ImageSpec,
    vision: VisionSpec,
    *,
    tiler: Tiler | None = None,
    skipped: tuple[int, ...] = (),
) -> Preprocessed:
    """Tile one picture.

    Args:
        rgb: uint8 [height, width, 3], as :func:`edge_mllm.image.load_rgb` gives it.
        image: The model's image processing.
        vision: The tower's contract.
        tiler: Takes the place of ``image.tiler``, for example one from :func:`fit_tiler`.
        skipped: Numbers of crops that are left out, see :mod:`edge_mllm.reduction.tiles`.

    Raises:
        ImageError: The array is not uint8 [height, width, 3] or the picture cannot be tiled.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ImageError("array", f"it is {rgb.dtype} {list(rgb.shape)}, expected uint8 [height, width, 3]")
    height, width = rgb.shape[:2]
    plan = replace(plan_tiles(width, height, tiler or image.tiler), skipped=skipped)
    pixels = tile_pixels(rgb, plan, image)
    if skipped:
        pixels = pixels[plan.places]
    if vision.patches is not None:
        pixels = pack_patches(pixels[0], vision.patches)
    return Preprocessed(pixels=pixels, plan=plan, tokens=plan.tokens(vision.tokens_per_tile))


def tile_pixels(rgb: npt.NDArray[np.uint8], plan: TilePlan, image: ImageSpec) -> npt.NDArray[np.float32]:
    """Carry out a plan: float32 [tiles, 3, tile height, tile width] from uint8 [height, width, 3]."""
    resample = _FILTERS[image.resample]
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    canvas = _apply(picture, plan.steps, resample)
    tiles = [_apply(canvas.crop(box), plan.tile_steps, resample) for box in plan.crops]
    if plan.global_steps is not None:
        whole = _apply(picture if plan.global_from_picture else canvas, plan.global_steps, resample)
        tiles.insert(0 if plan.global_first else len(tiles), whole)
    table = normalisation_table(image)
    pixels = np.empty((len(tiles), 3, tiles[0].height, tiles[0].width), np.float32)
    for out, tile in zip(pixels, tiles, strict=True):
        values = np.asarray(tile)
        for channel in range(3):
            np.take(table[channel], values[:, :, channel], out=out[channel], mode="clip")  # faster; all are in range
    return pixels


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
