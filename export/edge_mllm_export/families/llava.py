"""LLaVA 1.5 and what shares its layout: a CLIP or SigLIP tower on one tile, a two-layer projector, any language model.

The class is transformers' ``LlavaForConditionalGeneration``; prompts are those of its ``LlavaProcessor``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm.bundle import ImageSpec, PromptSpec, TileLayout, VisionSpec
from edge_mllm.tilers import SingleTile
from edge_mllm_export import published_layout as published
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.llava_parts import TowerParts
from edge_mllm_export.family import Family
from edge_mllm_export.processor_fields import affine, given, resample_name, special_tokens, stop_tokens
from edge_mllm_export.text_config import decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint import Checkpoint

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_CROPPING: dict[str, Any] = {
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_pad": False,
}
_STRETCHING: dict[str, Any] = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "do_pad": False}
_DEFAULTS = {"CLIPImageProcessor": _CROPPING, "LlavaImageProcessor": _CROPPING, "SiglipImageProcessor": _STRETCHING}
"""What the image processor's class uses where preprocessor_config.json says nothing."""
TOWERS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""Towers that are known -> tokens they put before the patches."""
_FILE = "preprocessor_config.json"


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json."""
    processor = _processor(checkpoint)
    rescale, mean, std = affine({key: value for key, value in processor.items() if key != "do_pad"})
    return ImageSpec(
        tiler=_tiler(processor, mean),
        resample=resample_name(processor, default="bicubic"),
        rescale=rescale,
        mean=mean,
        std=std,
    )


def _processor(checkpoint: Checkpoint) -> dict[str, Any]:
    kind = checkpoint.processor.get("image_processor_type", "CLIPImageProcessor")
    name = str(kind).removesuffix("Fast").removesuffix("Pil")
    if name not in _DEFAULTS:
        raise CheckpointError(_FILE, "image_processor_type", f"is {kind!r}, known: {', '.join(_DEFAULTS)}")
    steps = ("do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")
    found = _DEFAULTS[name] | given(checkpoint.processor, *steps, "size", "crop_size", "do_center_crop", "do_pad")
    if found["do_pad"] and name != "LlavaImageProcessor":
        raise CheckpointError(_FILE, "do_pad", f"is true, which {name} does in no released model")
    return found


def _tiler(processor: dict[str, Any], mean: tuple[float, float, float]) -> SingleTile:
    size = processor["size"]
    size = size if isinstance(size, dict) else {"shortest_edge": size}
    shortest, height = size.get("shortest_edge"), size.get("height")
    if shortest is None and isinstance(height, int) and height == size.get("width") and not processor["do_center_crop"]:
        return SingleTile(tile=height, fit="stretch")
    crop = processor.get("crop_size")
    crop = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
    same = crop.get("height") == crop.get("width") == shortest
    if not (processor["do_center_crop"] and isinstance(shortest, int) and same):
        reason = f"is {size} with crop_size {crop}, expected one square of the same side"
        raise CheckpointError(_FILE, "size", reason)
    if processor["do_pad"]:
        red, green, blue = (int(value * 255) for value in mean)
        return SingleTile(tile=shortest, fit="pad", fill=(red, green, blue))
    return SingleTile(tile=shortest, fit="crop")


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
        raise CheckpointError(_FILE, "size", reason)
    return VisionSpec(tokens_per_tile=_tokens(config), tile_height=tiler.tile, tile_width=tiler.tile)


def _tokens(config: Any) -> int:
    vision = config.vision_config
    dropped = int(config.vision_feature_select_strategy == "default")
    return int((vision.image_size // vision.patch_size) ** 2 + TOWERS[vision.model_type] - dropped)


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """Token ids; nothing is written around the visual tokens."""
    image_token = str(checkpoint.processor_settings.get("image_token") or "<image>")
    image_token_id = checkpoint.token_id(image_token)
    declared = checkpoint.config.get("image_token_index", checkpoint.config.get("image_token_id", image_token_id))
    if declared != image_token_id:
        reason = f"is {declared}, but the tokenizer's {image_token} is {image_token_id}"
        raise CheckpointError("config.json", "image_token_index", reason)
    return PromptSpec(
        image_token=image_token,
        image_token_id=image_token_id,
        placeholder=image_token,
        layout=TileLayout(),
        stop_token_ids=stop_tokens(checkpoint, "<|im_end|>"),
        special_tokens=special_tokens(checkpoint),
    )


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


def reference_processor(checkpoint: Checkpoint) -> Any:
    """The processor of transformers itself on its PIL image backend."""
    from transformers import LlavaProcessor

    return make_processor(checkpoint, LlavaProcessor)


def make_processor(checkpoint: Checkpoint, kind: Any) -> Any:
    """A processor of transformers that is made as ``LlavaProcessor`` is."""
    from transformers import AutoImageProcessor, AutoTokenizer

    config = resolved_config(checkpoint)
    return kind(
        AutoImageProcessor.from_pretrained(checkpoint.path, backend="pil"),
        AutoTokenizer.from_pretrained(checkpoint.path),
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=TOWERS[config.vision_config.model_type],
        image_token=prompt_spec(checkpoint).image_token,
        chat_template=checkpoint.chat_template,
    )


FAMILY = Family(
    name="llava",
    architectures=("LlavaForConditionalGeneration",),
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
    published=PUBLISHED,
    checkpoints=(
        "llava-hf/llava-1.5-7b-hf",
        "llava-hf/llava-interleave-qwen-0.5b-hf",
        "BAAI/Bunny-v1_0-2B-zh",
        "Zhang199/TinyLLaVA-Qwen2-0.5B-SigLIP",
    ),
    licence="see each checkpoint",
)
