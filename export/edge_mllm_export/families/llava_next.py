"""LLaVA-NeXT (1.6): a CLIP tower on the tiles of the best-fitting grid, stitched without padding, rows with newlines.

The class is transformers' ``LlavaNextForConditionalGeneration``; tiles are those of its ``LlavaNextImageProcessorPil``,
prompts those of its ``LlavaNextProcessor``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm.bundle import ImageSpec, VisionSpec
from edge_mllm.tilers import Stitch
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families import anyres
from edge_mllm_export.families.llava import CLIP_MEAN, CLIP_STD, make_processor, prompt_spec
from edge_mllm_export.families.llava_parts import TowerParts
from edge_mllm_export.family import Family
from edge_mllm_export.processor_fields import affine, given, resample_name
from edge_mllm_export.text_config import decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint import Checkpoint

_DEFAULTS: dict[str, Any] = {
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
}
"""What LlavaNextImageProcessorPil uses where preprocessor_config.json says nothing."""


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json."""
    processor = _processor(checkpoint)
    rescale, mean, std = affine(processor)
    return ImageSpec(
        tiler=anyres.best_fit_grid(resolved_config(checkpoint), processor, _tile(processor), Stitch()),
        resample=resample_name(processor, default="bicubic"),
        rescale=rescale,
        mean=mean,
        std=std,
    )


def _processor(checkpoint: Checkpoint) -> dict[str, Any]:
    steps = ("do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")
    return _DEFAULTS | given(
        checkpoint.processor, *steps, "size", "crop_size", "do_center_crop", "do_pad", "image_grid_pinpoints"
    )


def _tile(processor: dict[str, Any]) -> int:
    tile = anyres.square(processor["size"], "size")
    if processor["crop_size"] is not None and anyres.square(processor["crop_size"], "crop_size") != tile:
        raise CheckpointError(anyres.FILE, "crop_size", f"is {processor['crop_size']!r}, but size is {tile} px")
    return tile


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """Tile side and visual tokens per tile."""
    return anyres.vision_spec(resolved_config(checkpoint), _tile(_processor(checkpoint)))


def _projector() -> Any:
    from transformers.models.llava_next.modeling_llava_next import LlavaNextMultiModalProjector

    return LlavaNextMultiModalProjector


_TOWER = TowerParts(config=resolved_config, projector=_projector, newline=anyres.NEWLINE)


def reference_processor(checkpoint: Checkpoint) -> Any:
    """The processor of transformers itself on its PIL image backend."""
    from transformers import LlavaNextProcessor

    return make_processor(checkpoint, LlavaNextProcessor)


FAMILY = Family(
    name="llava_next",
    architectures=("LlavaNextForConditionalGeneration",),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=decoder_spec,
    text_config=text_config,
    text_tensors={"model.language_model.": "model.", "lm_head.": "lm_head."},
    tower_shapes=_TOWER.shapes,
    stored_tower=_TOWER.stored,
    build_tower=_TOWER.build,
    reference_processor=reference_processor,
    newline=anyres.NEWLINE,
    checkpoints=(
        "llava-hf/llava-v1.6-mistral-7b-hf",
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        "llava-hf/llama3-llava-next-8b-hf",
    ),
    licence="see each checkpoint",
)
