"""A processor for Ferret-UI in transformers' terms: CLIP's own on tiles that are cut as apple/ml-ferret cuts them.

The reference that bundles of this layout are compared with: ``process_anyres_image`` of ferretui/mm_utils.py, whose
pictures are resized by Pillow's own default before CLIP's processor sees them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import AutoTokenizer
from transformers.image_processing_utils import select_best_resolution
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from edge_mllm_export.families.tiles_processor import TilesProcessor

if TYPE_CHECKING:
    from PIL.Image import Image

    from edge_mllm_export.checkpoint import Checkpoint


class StretchingImageProcessor:
    """The whole picture and the parts of the grid that keeps most of it, as pixels."""

    def __init__(self, grids: list[list[int]], side: int, **settings: Any) -> None:
        """Keep the settings.

        Args:
            grids: [height, width] of the grids.
            side: Of a tile.
            **settings: Of CLIP's processor.
        """
        self._grids, self._side = grids, side
        self._clip = CLIPImageProcessorPil(size={"height": side, "width": side}, do_center_crop=False, **settings)

    def __call__(self, images: list[Image], *, return_tensors: str) -> dict[str, Any]:
        """pixel_values: for each picture [tiles, 3, side, side]."""
        tiles = [self._tiles(image) for image in images]
        return {"pixel_values": [self._clip(each, return_tensors=return_tensors)["pixel_values"] for each in tiles]}

    def _tiles(self, image: Image) -> list[Image]:
        height, width = select_best_resolution((image.height, image.width), self._grids)
        side = self._side
        stretched = image.resize((width, height))
        corners = [(left, top) for top in range(0, height, side) for left in range(0, width, side)]
        parts = [stretched.crop((left, top, left + side, top + side)) for left, top in corners]
        return [image.resize((side, side)), *parts]


class FerretUIProcessor(TilesProcessor):
    """Pictures and text of one prompt."""

    def __call__(self, text: str, images: list[Image] | None = None, **options: Any) -> Any:
        """input_ids, attention_mask, pixel_values, and image_sizes int64 [pictures, 2], height and width."""
        data = super().__call__(text, images, **options)
        if images:
            sizes = np.array([(image.height, image.width) for image in images], np.int64)
            data["image_sizes"] = sizes
        return data.convert_to_tensors(options.get("return_tensors"))


def make_processor(checkpoint: Checkpoint, *, tokens: int, image_token: str) -> FerretUIProcessor:
    """Build the processor from a checkpoint's settings.

    Args:
        checkpoint: Where they are.
        tokens: Visual tokens of one tile.
        image_token: The token that stands for a visual token.
    """
    settings = dict(checkpoint.processor)
    known = ("do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")
    image_processor = StretchingImageProcessor(
        settings["image_grid_pinpoints"],
        settings["size"]["height"],
        **{name: settings[name] for name in known if name in settings},
    )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    return FerretUIProcessor(
        image_processor, tokenizer, tokens=tokens, image_token=image_token, template=checkpoint.chat_template
    )
