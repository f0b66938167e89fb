"""Gemma 3 (4B and larger): a SigLIP per tile, its patches pooled to 256 tokens, a Gemma whose pictures see themselves.

The class is transformers' ``Gemma3ForConditionalGeneration``; tiles are those of its ``Gemma3ImageProcessorPil``
(pan-and-scan included), the prompt that of its ``Gemma3Processor``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import DecoderSpec, ImageSpec, PromptSpec, TileLayout, VisionSpec
from edge_mllm.bundle.tilers import PanAndScan, SingleTile
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families import published_layout as published
from edge_mllm_export.families.family import Family, MmprojSpec, siglip_tensors, transformer_keys
from edge_mllm_export.families.image_settings import STEPS, image_settings
from edge_mllm_export.families.processor_fields import special_tokens, stop_tokens
from edge_mllm_export.families.text_config import plain_decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    import torch

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

START, IMAGE, END = "<start_of_image>", "<image_soft_token>", "<end_of_image>"

_BEFORE, _AFTER = f"\n\n{START}", f"{END}\n\n"
LAYOUT = TileLayout(
    before_single=_BEFORE,
    after_single=_AFTER,
    before_global="Here is the original image " + _BEFORE,
    after_global=_AFTER + " and here are some crops to help you see better",
    before_tile=" " + _BEFORE,
    after_tile=_AFTER,
)

_CLASSES: dict[str, dict[str, Any]] = {
    "Gemma3ImageProcessor": STEPS
    | {
        "resample": 2,
        "size": {"height": 224, "width": 224},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
}
"""What Gemma3ImageProcessorPil uses where preprocessor_config.json says nothing."""
_CROPS: dict[str, Any] = {"min_crop": 256, "max_crops": 4, "min_ratio": 1.2}
"""What Gemma3Processor asks for with every call, whatever preprocessor_config.json says of pan-and-scan."""


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json. Pan-and-scan is the caller's choice, in the reference as here."""
    settings = image_settings(checkpoint, _CLASSES)
    settings.require("do_resize", "pictures would keep their size")
    return settings.spec(_tiler(checkpoint))


def _tiler(checkpoint: Checkpoint) -> PanAndScan | SingleTile:
    tile = image_settings(checkpoint, _CLASSES).square("size")
    return PanAndScan(tile=tile, **_CROPS) if _pans(checkpoint) else SingleTile(tile=tile)


def _pans(checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.processor_settings.get("pan_and_scan", False))


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """Tile side and visual tokens per tile, checked against the tower."""
    config, tile = resolved_config(checkpoint), _tiler(checkpoint).tile
    vision, tokens = config.vision_config, config.mm_tokens_per_image
    if tile != vision.image_size:
        reason = f"is {tile}, but the tower takes {vision.image_size} pixels"
        raise image_settings(checkpoint, _CLASSES).fault("size", reason)
    patches, side = tile // vision.patch_size, math.isqrt(tokens)
    if side**2 != tokens or side < 1 or patches % side:
        reason = f"is {tokens}, which is no square whose side divides the {patches} patches of a tile's side"
        raise CheckpointError("config.json", "mm_tokens_per_image", reason)
    return VisionSpec(tokens_per_tile=tokens, tile_height=tile, tile_width=tile)


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """Token ids and the text around visual tokens."""
    config = resolved_config(checkpoint)
    for text, field in ((IMAGE, "image_token_index"), (START, "boi_token_index"), (END, "eoi_token_index")):
        found, declared = checkpoint.token_id(text), getattr(config, field)
        if declared != found:
            raise CheckpointError("config.json", field, f"is {declared}, but the tokenizer's {text} is {found}")
    return PromptSpec(
        image_token=IMAGE,
        image_token_id=checkpoint.token_id(IMAGE),
        placeholder=START,
        layout=LAYOUT,
        stop_token_ids=stop_tokens(checkpoint, "<end_of_turn>"),
        special_tokens=special_tokens(checkpoint),
    )


def decoder_spec(checkpoint: Checkpoint) -> DecoderSpec:
    """Dimensions of the language model; pictures attend in both directions, text embeddings are scaled."""
    config = resolved_config(checkpoint)
    text, tokens = config.text_config, config.mm_tokens_per_image
    if text.sliding_window < tokens:
        reason = f"is {text.sliding_window}, less than the {tokens} tokens of a picture, which must see all of itself"
        raise CheckpointError("config.json", "text_config.sliding_window", reason)
    return replace(
        plain_decoder_spec(text), image_attention="bidirectional", embedding_scale=float(text.hidden_size**0.5)
    )


def tower_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Every tensor of tower and projector."""
    from edge_mllm_export.families.gemma3 import tower as gemma3_tower

    return gemma3_tower.tower_shapes(resolved_config(checkpoint))


def build_tower(checkpoint: Checkpoint) -> torch.nn.Module:
    """Tower and projector with the checkpoint's weights, float32; nothing of the language model is loaded."""
    from edge_mllm_export.families.gemma3.tower import load_tower

    return load_tower(checkpoint, resolved_config(checkpoint))


def mmproj_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata that llama.cpp's libmtmd reads for this tower; floats are float, sizes are int."""
    config, image = resolved_config(checkpoint), image_spec(checkpoint)
    vision = config.vision_config
    pooled = vision.image_size // vision.patch_size // math.isqrt(config.mm_tokens_per_image)
    return {
        **transformer_keys(config, image, side=vision.image_size, patch=vision.patch_size),
        "clip.use_gelu": True,
        **({} if pooled == _USUAL_POOLING else {"clip.vision.projector.scale_factor": pooled}),
    }


_USUAL_POOLING = 4
"""Side of a pooled square of patches that libmtmd takes where the file says nothing."""
_NORM, _PROJECTION = (
    f"model.multi_modal_projector.{name}" for name in ("mm_soft_emb_norm.weight", "mm_input_projection_weight")
)
MMPROJ = MmprojSpec(
    projector_type="gemma3",
    keys=mmproj_keys,
    tensors=siglip_tensors("model.vision_tower.")
    | {_NORM: "mm.soft_emb_norm.weight", _PROJECTION: "mm.input_projection.weight"},
    added={_NORM: 1.0},
    halved=(_PROJECTION,),
)


def counts(checkpoint: Checkpoint) -> dict[str, Any]:
    """The processor's visual tokens of a picture."""
    return {"image_seq_length": vision_spec(checkpoint).tokens_per_tile}


def processor_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """Pan-and-scan, which a user asks for with every call or with none."""
    return {"images_kwargs": {"do_pan_and_scan": True}} if _pans(checkpoint) else {}


PUBLISHED = published.refused(
    "gemma3",
    "pictures of this model attend in both directions, and the published decoder cannot be told which tokens are one: "
    "export the checkpoint",
)
"""onnx-community/gemma-3-4b-it-ONNX is for transformers.js 4, which tells a decoder nothing of where a picture is."""

FAMILY = Family(
    name="gemma3",
    architectures=("Gemma3ForConditionalGeneration",),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=decoder_spec,
    text_config=text_config,
    tower_shapes=tower_shapes,
    build_tower=build_tower,
    counts=counts,
    processor_options=processor_options,
    mmproj=MMPROJ,
    published=PUBLISHED,
    pan_and_scan=True,
    checkpoints=("google/gemma-3-4b-it",),
    licence="Gemma",
)
