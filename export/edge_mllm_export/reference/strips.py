"""Patches that a processor lays out as one strip, in the order in which the runtime packs them.

Some image processors write every tile as its patches side by side, row after row, and all tiles of all pictures behind
each other: [1, channels, patch, patches * patch], with rows and columns of each tile beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.picture.patches import pack_patches

if TYPE_CHECKING:
    from edge_mllm.arrays import FloatArray, IntArray
    from edge_mllm.bundle.spec import PatchInput

SIZES = "target_sizes"
"""Name of the tensor that has each tile's rows and columns of patches."""


def is_strip(pixels: Any, patches: PatchInput | None) -> bool:
    """Whether pixels are one: [1, 3, side of a patch, any]."""
    return patches is not None and pixels.ndim == 4 and tuple(pixels.shape[:3]) == (1, 3, patches.patch)


def unrolled(strip: FloatArray, sizes: IntArray, patches: PatchInput) -> FloatArray:
    """Packed patches of all tiles, float32 [patches, values], see :mod:`edge_mllm.picture.patches`.

    Args:
        strip: float32 [1, 3, patch, patches * patch].
        sizes: int [tiles, 2], rows and columns of patches.
        patches: How the runtime packs them.

    Raises:
        ValueError: The strip has other patches than the sizes say.
    """
    side, ends = patches.patch, np.cumsum([rows * cols for rows, cols in sizes.tolist()]) * patches.patch
    if not len(ends) or strip.shape[-1] != ends[-1]:
        raise ValueError(f"a strip of {strip.shape[-1]} columns for tiles of {sizes.tolist()} patches of {side} pixels")
    tiles = []
    for part, (rows, cols) in zip(np.split(strip[0], ends[:-1], axis=-1), sizes.tolist(), strict=True):
        picture = part.reshape(3, side, rows, cols, side).transpose(0, 2, 1, 3, 4)
        tiles.append(pack_patches(picture.reshape(3, rows * side, cols * side), patches))
    return np.concatenate(tiles)
