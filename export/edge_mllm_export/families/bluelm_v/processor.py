"""A processor for BlueLM-V-3B in transformers' terms: the paper's choice of a grid, LLaVA-NeXT's tiles.

The reference that bundles of this layout are compared with. The choice is written down here a second time, line for
line as Algorithm 1 of Lu et al. (arXiv 2411.10640) has it, so that it can be compared with the runtime's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers.models.llava_next import image_processing_pil_llava_next as tiles

from edge_mllm_export.families.tiles_processor import TilesProcessor, template_writer
from edge_mllm_export.tokenizer.directory import file_tokenizer

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint


def relaxed_resolution(size: tuple[int, int], candidates: list[list[int]], alpha: float) -> list[int]:
    """Algorithm 1, relaxed aspect-ratio matching.

    Args:
        size: Height and width of the picture.
        candidates: [height, width] of the grids, the largest first.
        alpha: How much effective resolution may be given up.

    Returns:
        The choice; the smallest grid for a picture so thin that no grid keeps a pixel of it.
    """
    height, width = size
    best, most_effective, least_wasted = candidates[-1], 0.0, math.inf
    for candidate in candidates:
        scale = min(candidate[1] / width, candidate[0] / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        wasted = candidate[0] * candidate[1] - effective
        if (effective - most_effective) > alpha * most_effective or (
            (most_effective - effective) < alpha * most_effective and wasted < least_wasted
        ):
            most_effective, least_wasted, best = effective, wasted, candidate
    return best


class RelaxedImageProcessor(tiles.LlavaNextImageProcessorPil):  # type: ignore[misc]  # transformers is not typed here
    """LLaVA-NeXT's tiles on the grid of :func:`relaxed_resolution`."""

    relaxation = 0.1

    def get_image_patches(self, image: Any, grid_pinpoints: list[list[int]], **settings: Any) -> list[Any]:
        """The thumbnail and the tiles of the chosen grid."""
        chosen = relaxed_resolution(image.shape[-2:], grid_pinpoints, self.relaxation)
        patches: list[Any] = super().get_image_patches(image, [chosen], **settings)
        return patches


def make_processor(
    checkpoint: Checkpoint, *, alpha: float, defaults: Mapping[str, Any], tokens: int, image_token: str
) -> TilesProcessor:
    """Build the processor from a checkpoint's settings.

    Args:
        checkpoint: Where they are.
        alpha: Of :func:`relaxed_resolution`.
        defaults: Of the settings that it leaves out.
        tokens: Visual tokens of one tile.
        image_token: The token that stands for a visual token.
    """
    settings = {name: checkpoint.processor.get(name, value) for name, value in defaults.items()}
    image_processor = RelaxedImageProcessor(**settings)
    image_processor.relaxation = alpha
    tokenizer = file_tokenizer(checkpoint.path)

    def tiles(image: Any) -> Any:
        return image_processor([image], return_tensors="np")["pixel_values"][0]

    return TilesProcessor(
        tokenizer=tokenizer,
        write=template_writer(tokenizer, checkpoint.chat_template),
        tiles=tiles,
        tokens=tokens,
        mark=image_token,
        visual=lambda count: image_token * count,
        written_from="Algorithm 1 of arXiv 2411.10640 and LLaVA-NeXT's tiles in transformers",
    )
