"""LLaVA 1.5 and what shares its layout: a CLIP or SigLIP tower on one tile, a two-layer projector, any language model.

The class is transformers' ``LlavaForConditionalGeneration``; prompts are those of its ``LlavaProcessor``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import ImageSpec, PromptSpec, TileLayout, VisionSpec
from edge_mllm.bundle.tilers import SingleTile
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families import published_layout as published
from edge_mllm_export.families.family import Family
from edge_mllm_export.families.image_settings import STEPS, ImageSettings, image_settings
from edge_mllm_export.families.llava.parts import TowerParts
from edge_mllm_export.families.processor_fields import image_prompt
from edge_mllm_export.families.text_config import decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_CROPPING: dict[str, Any] = STEPS | {
    "default_to_square": False,
    "resample": 3,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_pad": None,
    "pad_size": None,
}
_STRETCHING: dict[str, Any] = _CROPPING | {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"height": 224, "width": 224},
    "crop_size": None,
    "do_center_crop": None,
}
_SQUARING = "LlavaImageProcessor"
"""The class whose ``do_pad`` makes a square of the picture; that of others fills up a batch behind all other steps."""
_CLASSES = {
    _SQUARING: _CROPPING | {"do_pad": False},
    "CLIPImageProcessor": _CROPPING,
    "SiglipImageProcessor": _STRETCHING,
}
"""What the image processor's class uses where preprocessor_config.json says nothing."""
TOWERS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""Towers that are known -> tokens they put before the patches."""


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json."""
    settings = image_settings(checkpoint, _CLASSES)
    return settings.spec(_tiler(settings))


def _tiler(settings: ImageSettings) -> SingleTile:
    """Pad to a square, resize, cut out the middle: those of the three that leave one square of a fixed side."""
    settings.require("do_resize", "pictures would keep their size")
    squares = settings.values["image_processor_type"] == _SQUARING and settings.step("do_pad")
    size = settings.sides("size")
    by_shorter_side = set(size) == {"shortest_edge"}
    side = settings.square("size", shortest=True)
    if settings.step("do_center_crop"):
        if settings.square("crop_size", square=True) != side:
            reason = f"is {settings.values['crop_size']!r}, but size is {side} px; only equal ones can be exported"
            raise settings.fault("crop_size", reason)
    elif by_shorter_side and not squares:
        settings.require("do_center_crop", f"pictures would keep their shape, {side} px on the shorter side")
    if not squares:
        _check_batch_padding(settings, side)
        return SingleTile(tile=side, fit="crop" if by_shorter_side else "stretch")
    colour = (0, 0, 0) if settings.values["image_mean"] is None else settings.fill()
    return SingleTile(tile=side, fit="pad", fill=colour)


def _check_batch_padding(settings: ImageSettings, side: int) -> None:
    """Tiles are of one size already, so filling up a batch does nothing unless it is asked for another size."""
    asked = settings.values["do_pad"] and settings.values["image_processor_type"] != _SQUARING
    if asked and settings.values["pad_size"] is not None and settings.square("pad_size", square=True) != side:
        raise settings.fault("pad_size", f"is {settings.values['pad_size']!r}, but tiles have {side} px")


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """Tile side and visual tokens per tile, checked against tower and processor."""
    config = resolved_config(checkpoint)
    vision = config.vision_config
    if vision.model_type not in TOWERS:
        reason = f"is '{vision.model_type}', known: {', '.join(TOWERS)}"
        raise CheckpointError("config.json", "vision_config.model_type", reason)
    tiler = image_spec(checkpoint).tiler
    assert isinstance(tiler, SingleTile)  # noqa: S101  (made above)
    if tiler.tile != vision.image_size:
        reason = f"makes tiles of {tiler.tile} px, but vision_config.image_size is {vision.image_size}"
        raise image_settings(checkpoint, _CLASSES).fault("size", reason)
    return VisionSpec(tokens_per_tile=_tokens(config), tile_height=tiler.tile, tile_width=tiler.tile)


def _tokens(config: Any) -> int:
    vision = config.vision_config
    dropped = int(config.vision_feature_select_strategy == "default")
    return int((vision.image_size // vision.patch_size) ** 2 + TOWERS[vision.model_type] - dropped)


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """Token ids; nothing is written around the visual tokens."""
    image_token = str(checkpoint.processor_settings.get("image_token") or "<image>")
    fields = ("image_token_index", "image_token_id")
    return image_prompt(checkpoint, image_token, TileLayout(), "<|im_end|>", *fields)


def _projector() -> Any:
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    return LlavaMultiModalProjector


_TOWER = TowerParts(config=resolved_config, projector=_projector)


_SIDE = published.read("config.vision_config.image_size")
PUBLISHED = {
    "model_types": ["llava"],
    "require": published.required("do_resize", "do_rescale", "do_normalize"),
    "image": [
        {
            "when": {
                "processor.image_processor_type": ["CLIPImageProcessor", "CLIPImageProcessorFast", None],
                "processor.do_center_crop": [True, None],
            },
            **published.image(
                {
                    "kind": "single_tile",
                    "fit": "crop",
                    "tile": published.read("processor.size.shortest_edge", "processor.size"),
                },
                resample="bicubic",
                mean=CLIP_MEAN,
                std=CLIP_STD,
            ),
        },
        {
            "when": {"processor.image_processor_type": ["SiglipImageProcessor", "SiglipImageProcessorFast"]},
            **published.image(
                {"kind": "single_tile", "fit": "stretch", "tile": published.read("processor.size.height")},
                resample="bicubic",
                mean=[0.5, 0.5, 0.5],
                std=[0.5, 0.5, 0.5],
            ),
        },
    ],
    "vision": [
        {
            "when": {
                "config.vision_config.model_type": [tower],
                "config.vision_feature_select_strategy": ["default" if before else "full", None],
            },
            "tokens_per_tile": {"tokens": [_SIDE, published.read("config.vision_config.patch_size"), 1, 0]},
            "tile_height": _SIDE,
            "tile_width": _SIDE,
        }
        for tower, before in TOWERS.items()
    ],
    "prompt": published.prompt(
        published.read("settings.image_token", default="<image>"),
        ["config.image_token_index", "config.image_token_id"],
        TileLayout(),
        ["<|im_end|>"],
    ),
    "decoder": published.decoder(),
}


def counts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the processor reckons visual tokens with."""
    config = resolved_config(checkpoint)
    return {
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": TOWERS[config.vision_config.model_type],
    }


FAMILY = Family(
    name="llava",
    architectures=("LlavaForConditionalGeneration",),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=decoder_spec,
    text_config=text_config,
    tower_shapes=_TOWER.shapes,
    stored_tower=_TOWER.stored,
    build_tower=_TOWER.build,
    counts=counts,
    published=PUBLISHED,
    checkpoints=(
        "llava-hf/llava-1.5-7b-hf",
        "llava-hf/llava-interleave-qwen-0.5b-hf",
        "BAAI/Bunny-v1_0-2B-zh",
        "Zhang199/TinyLLaVA-Qwen2-0.5B-SigLIP",
    ),
    licence="see each checkpoint",
)
