"""Patches that a processor lays out as one strip, in the order in which the runtime packs them.

Some image processors write every tile as its patches side by side, row after row, and all tiles of all pictures behind
each other: [1, channels, patch, patches * patch], with rows and columns of each tile beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.picture.patches import pack_patches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_mllm.arrays import FloatArray, IntArray
    from edge_mllm.bundle.spec import PatchInput


def packed_strip(tensors: Mapping[str, Any], patches: PatchInput | None) -> FloatArray | None:
    """Packed patches of a processor's ``pixel_values``; None where they are no strip [1, 3, side of a patch, any].

    Args:
        tensors: What the processor gave, with each tile's rows and columns of patches in ``target_sizes``.
        patches: How the runtime packs them; None where it takes tiles.
    """
    pixels = tensors["pixel_values"]
    if patches is None or pixels.ndim != 4 or tuple(pixels.shape[:3]) != (1, 3, patches.patch):
        return None
    return unrolled(np.asarray(pixels), np.asarray(tensors["target_sizes"]), patches)


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
