"""LLaVA-NeXT (1.6): a CLIP tower on the tiles of the best-fitting grid, stitched without padding, rows with newlines.

The class is transformers' ``LlavaNextForConditionalGeneration``; tiles are those of its ``LlavaNextImageProcessorPil``,
prompts those of its ``LlavaNextProcessor``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import ImageSpec, VisionSpec
from edge_mllm.bundle.tilers import Stitch
from edge_mllm_export.families.family import Family
from edge_mllm_export.families.image_settings import STEPS, image_settings
from edge_mllm_export.families.llava import anyres
from edge_mllm_export.families.llava.llava import CLIP_MEAN, CLIP_STD, counts, prompt_spec
from edge_mllm_export.families.llava.parts import TowerParts
from edge_mllm_export.families.text_config import decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

_CLASSES: dict[str, dict[str, Any]] = {
    "LlavaNextImageProcessor": STEPS
    | {
        "default_to_square": False,
        "resample": 3,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    }
}
"""What LlavaNextImageProcessorPil uses where preprocessor_config.json says nothing. Its ``do_pad`` fills up a batch
with tiles that no model sees."""


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json."""
    settings = image_settings(checkpoint, _CLASSES)
    tile = anyres.tile_side(settings)
    return settings.spec(anyres.best_fit_grid(resolved_config(checkpoint), settings, tile, Stitch()))


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """Tile side and visual tokens per tile."""
    return anyres.vision_spec(resolved_config(checkpoint), image_settings(checkpoint, _CLASSES))


def _projector() -> Any:
    from transformers.models.llava_next.modeling_llava_next import LlavaNextMultiModalProjector

    return LlavaNextMultiModalProjector


_TOWER = TowerParts(config=resolved_config, projector=_projector, newline=anyres.NEWLINE)


FAMILY = Family(
    name="llava_next",
    architectures=("LlavaNextForConditionalGeneration",),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=decoder_spec,
    text_config=text_config,
    tower_shapes=_TOWER.shapes,
    stored_tower=_TOWER.stored,
    build_tower=_TOWER.build,
    counts=counts,
    newline=anyres.NEWLINE,
    checkpoints=(
        "llava-hf/llava-v1.6-mistral-7b-hf",
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        "llava-hf/llama3-llava-next-8b-hf",
    ),
    licence="see each checkpoint",
)
