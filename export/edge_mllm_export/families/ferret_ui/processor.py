"""A processor for Ferret-UI in transformers' terms: CLIP's own on tiles that are cut as apple/ml-ferret cuts them.

The reference that bundles of this layout are compared with: ``process_anyres_image`` of ferretui/mm_utils.py, whose
pictures are resized by Pillow's own default before CLIP's processor sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from transformers.image_processing_utils import select_best_resolution
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from edge_mllm_export.families.tiles_processor import TilesProcessor, template_writer
from edge_mllm_export.tokenizer.directory import file_tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

    from edge_mllm.arrays import FloatArray
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint


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

    def pixels(self, image: Image) -> FloatArray:
        """float32 [tiles, 3, side, side]."""
        found: FloatArray = self._clip(self._tiles(image), return_tensors="np")["pixel_values"]
        return found

    def _tiles(self, image: Image) -> list[Image]:
        height, width = select_best_resolution((image.height, image.width), self._grids)
        side = self._side
        stretched = image.resize((width, height))
        corners = [(left, top) for top in range(0, height, side) for left in range(0, width, side)]
        parts = [stretched.crop((left, top, left + side, top + side)) for left, top in corners]
        return [image.resize((side, side)), *parts]


def make_processor(
    checkpoint: Checkpoint, settings: Mapping[str, Any], *, side: int, tokens: int, image_token: str
) -> TilesProcessor:
    """Build the processor from a checkpoint's settings.

    Args:
        checkpoint: Where tokenizer and chat template are.
        settings: Of the image processor.
        side: Of a tile.
        tokens: Visual tokens of one tile.
        image_token: The token that stands for a visual token.
    """
    tokenizer = file_tokenizer(checkpoint.path)
    return TilesProcessor(
        tokenizer=tokenizer,
        write=template_writer(tokenizer, checkpoint.chat_template),
        tiles=screen_tiles(settings, side),
        tokens=tokens,
        mark=image_token,
        visual=lambda count: image_token * count,
        written_from="apple/ml-ferret, ferretui/mm_utils.py",
        with_sizes=True,
    )


def screen_tiles(settings: Mapping[str, Any], side: int) -> Callable[[Image], FloatArray]:
    """What cuts a screen into tiles of a side, from all settings of the image processor."""
    known = ("do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")
    image_processor = StretchingImageProcessor(
        settings["image_grid_pinpoints"],
        side,
        **{name: settings[name] for name in known},
    )
    return image_processor.pixels
