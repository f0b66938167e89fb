"""LLaVA-OneVision: SigLIP on the tiles of the best-fitting grid, stitched, shrunk to nine tiles' tokens; a Qwen2.

The class is transformers' ``LlavaOnevisionForConditionalGeneration``; tiles are those of its
``LlavaOnevisionImageProcessorPil``, prompts those of its ``LlavaOnevisionProcessor``. Several pictures in
one message are padded to squares and get one tile each, as in training (Li et al., arXiv 2408.03326, section 3.2); the
processor does so when it is handed the pictures of a conversation together.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import ImageSpec, TileLayout, VisionSpec
from edge_mllm.bundle.tilers import SingleTile, Stitch
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families import published_layout as published
from edge_mllm_export.families.family import Family
from edge_mllm_export.families.image_settings import STEPS, image_settings
from edge_mllm_export.families.llava import anyres
from edge_mllm_export.families.llava.llava import CLIP_MEAN, CLIP_STD, prompt_spec
from edge_mllm_export.families.llava.parts import TowerParts
from edge_mllm_export.families.text_config import decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

_SIDES = range(384, 2305, 384)
_DEFAULTS: dict[str, Any] = STEPS | {
    "default_to_square": False,
    "resample": 3,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "size": {"height": 384, "width": 384},
    "crop_size": None,
    "do_center_crop": None,
    "image_grid_pinpoints": [[height, width] for height in _SIDES for width in _SIDES],
}
"""What LlavaOnevisionImageProcessorPil uses where preprocessor_config.json says nothing. Its ``do_pad`` fills up a
batch with tiles that no model sees."""
_CLASSES = {"LlavaOnevisionImageProcessor": _DEFAULTS}
_RATIO = re.compile(r"anyres_max_([1-9]\d{0,2})")


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json."""
    settings = image_settings(checkpoint, _CLASSES)
    tile = anyres.tile_side(settings)
    settings.require("do_resize", "several pictures would keep their sizes")
    stitch = Stitch(max_tiles=most_tiles(checkpoint))
    return settings.spec(
        anyres.best_fit_grid(resolved_config(checkpoint), settings, tile, stitch),
        several=SingleTile(tile=tile, fit="pad", fill=settings.fill(), stitch=Stitch()),
    )


def most_tiles(checkpoint: Checkpoint) -> int:
    """N of ``anyres_max_N``, which model and processor must agree on.

    Raises:
        CheckpointError: They do not, or it is something else.
    """
    value = resolved_config(checkpoint).vision_aspect_ratio
    declared = checkpoint.processor_settings.get("vision_aspect_ratio", "anyres_max_9")
    found = _RATIO.fullmatch(str(value))
    if found is None:
        raise CheckpointError("config.json", "vision_aspect_ratio", f"is {value!r}, expected anyres_max_N")
    if declared != value:
        reason = f"is {declared!r}, but config.json has {value!r}"
        raise CheckpointError("processor_config.json", "vision_aspect_ratio", reason)
    return int(found.group(1))


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """Tile side and visual tokens per tile."""
    return anyres.vision_spec(resolved_config(checkpoint), image_settings(checkpoint, _CLASSES))


def _projector() -> Any:
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionMultiModalProjector

    return LlavaOnevisionMultiModalProjector


_TOWER = TowerParts(config=resolved_config, projector=_projector, newline=anyres.NEWLINE)


def counts(checkpoint: Checkpoint) -> dict[str, Any]:
    """The processor's visual tokens of a tile, and which of the tower's it takes."""
    return {
        "num_image_tokens": vision_spec(checkpoint).tokens_per_tile,
        "vision_feature_select_strategy": resolved_config(checkpoint).vision_feature_select_strategy,
    }


_SIDE = published.read("processor.size.height")
_PAD = {"kind": "single_tile", "fit": "pad", "tile": _SIDE}
_MEAN = published.read("processor.image_mean", default=_DEFAULTS["image_mean"])
PUBLISHED = {
    "model_types": ["llava_onevision"],
    "require": published.required("do_resize", "do_rescale", "do_normalize")
    | {"config.vision_feature_select_strategy": "full", "config.vision_config.model_type": "siglip_vision_model"},
    "image": published.image(
        {
            "kind": "best_fit_grid",
            "tile": _SIDE,
            "grids": published.grids(
                published.read("processor.image_grid_pinpoints", "config.image_grid_pinpoints"), _SIDE
            ),
            "stitch": {
                "max_tiles": published.number_behind(
                    "anyres_max_", published.read("config.vision_aspect_ratio", default="anyres_max_9")
                )
            },
        },
        resample="bicubic",
        mean=_DEFAULTS["image_mean"],
        std=_DEFAULTS["image_std"],
    )
    | {"several": {**_PAD, "fill": published.colour(_MEAN), "stitch": {}}},
    "vision": {
        "tokens_per_tile": {"tokens": [_SIDE, published.read("config.vision_config.patch_size"), 1, 0]},
        "tile_height": _SIDE,
        "tile_width": _SIDE,
    },
    "prompt": published.prompt(
        published.read("settings.image_token", default="<image>"),
        ["config.image_token_index", "config.image_token_id"],
        TileLayout(),
        ["<|im_end|>"],
    ),
    "decoder": published.decoder(),
    "newline": ["image_newline", "model.image_newline"],
}
"""llava-hf publishes the ONNX files beside the checkpoint, which has the newline that they lack. transformers.js shows
a picture as one tile without it; here it is tiled as the model's own processor does."""

FAMILY = Family(
    name="llava_onevision",
    architectures=("LlavaOnevisionForConditionalGeneration",),
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
    published=PUBLISHED,
    checkpoints=(
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        "llava-hf/llava-onevision-qwen2-0.5b-si-hf",
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    ),
    licence="Apache-2.0",
)
