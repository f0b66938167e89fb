"""InternVL 2.5, 3 and 3.5: an InternViT per tile, pixel shuffle, a two-layer projector, a Qwen or a Llama.

The class is transformers' ``InternVLForConditionalGeneration``. Checkpoints in the layout of the original repository
are brought to this one by :mod:`edge_mllm_export.source.layouts.internvl_chat`. Tiling is that of transformers'
``GotOcr2ImageProcessorPil``, the prompt layout that of its ``InternVLProcessor``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import ImageSpec, PromptSpec, TileLayout, VisionSpec
from edge_mllm.bundle.tilers import AspectGrid
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.family import Family, MmprojSpec, transformer_keys
from edge_mllm_export.families.image_settings import STEPS, image_settings
from edge_mllm_export.families.processor_fields import image_prompt
from edge_mllm_export.families.text_config import decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    import torch

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

START, IMAGE, END = "<img>", "<IMG_CONTEXT>", "</img>"

LAYOUT = TileLayout(before_image=START, after_image=END)
TAGGED_LAYOUT = TileLayout(
    before_image="<Image>",
    before_tile="<tile_{index}>",
    before_global="<tile_global_thumbnail>",
    before_single="<tile_global_thumbnail>",
    after_image="</Image>",
)
"""The 1-D tile tags of NVLM-D (arXiv 2409.11402, section 3), as vLLM writes them."""

_CLASSES: dict[str, dict[str, Any]] = {
    "GotOcr2ImageProcessor": STEPS
    | {
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "size": {"height": 384, "width": 384},
        "min_patches": 1,
        "max_patches": 12,
    }
}
"""What GotOcr2ImageProcessorPil uses where preprocessor_config.json says nothing."""


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json. The processor always cuts tiles, whatever ``crop_to_patches`` says there."""
    settings = image_settings(checkpoint, _CLASSES)
    least, most = settings.number("min_patches"), settings.number("max_patches")
    if least > most:
        reason = f"is {most!r} with min_patches {least!r}, expected 1 <= min_patches <= max_patches"
        raise settings.fault("max_patches", reason)
    if not settings.step("do_resize") and most == 1:  # several tiles are resized in any case
        settings.require("do_resize", "pictures would keep their size")
    return settings.spec(AspectGrid(tile=_tile(checkpoint), min_tiles=least, max_tiles=most))


def _tile(checkpoint: Checkpoint) -> int:
    return image_settings(checkpoint, _CLASSES).square("size")


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """Tile side and visual tokens per tile."""
    tile = _tile(checkpoint)
    config = resolved_config(checkpoint)
    patches = tile // config.vision_config.patch_size[0]
    side = patches * config.downsample_ratio
    if side != int(side) or config.vision_config.patch_size[0] != config.vision_config.patch_size[1]:
        reason = f"is {config.downsample_ratio}, which does not fit the {patches} patches of a tile's side"
        raise CheckpointError("config.json", "downsample_ratio", reason)
    if config.vision_feature_layer != -1 or config.vision_feature_select_strategy != "default":
        reason = "is another layer or strategy than the last layer without its class token"
        raise CheckpointError("config.json", "vision_feature_layer", reason)
    tokens = int(side) ** 2
    return VisionSpec(tokens_per_tile=tokens, tile_height=tile, tile_width=tile)


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """Token ids and the text around visual tokens."""
    for marker in (START, END):
        checkpoint.token_id(marker)
    layout = TAGGED_LAYOUT if _tagged(checkpoint) else LAYOUT
    return image_prompt(checkpoint, IMAGE, layout, "<|im_end|>", "image_token_id")


def _tagged(checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.processor_settings.get("tile_tags", False))


def tower_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Every tensor of tower and projector."""
    from edge_mllm_export.families.internvl import tower as internvl_tower

    return internvl_tower.tower_shapes(resolved_config(checkpoint))


def build_tower(checkpoint: Checkpoint) -> torch.nn.Module:
    """Tower and projector with the checkpoint's weights, float32; nothing of the language model is loaded."""
    from edge_mllm_export.families.internvl.tower import load_tower

    return load_tower(checkpoint, resolved_config(checkpoint), tile=_tile(checkpoint))


def mmproj_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata that llama.cpp's libmtmd reads for this tower; floats are float, sizes are int."""
    config = resolved_config(checkpoint)
    vision, image = config.vision_config, image_spec(checkpoint)
    if vision.use_qk_norm or vision.hidden_act != "gelu" or vision.norm_type != "layer_norm":
        raise CheckpointError("config.json", "vision_config", "is an InternViT-6B, which `mmproj` does not write")
    assert isinstance(image.tiler, AspectGrid)  # noqa: S101  (made above)
    return {
        **transformer_keys(config, image, side=vision.image_size[0], patch=vision.patch_size[0]),
        "clip.vision.projector.scale_factor": int(1.0 / config.downsample_ratio),
        "clip.vision.preproc_min_tiles": image.tiler.min_tiles,
        "clip.vision.preproc_max_tiles": image.tiler.max_tiles,
        "clip.use_gelu": True,
    }


_VISION, _LAYER, _BLOCK = "model.vision_tower.", "model.vision_tower.encoder.layer.{i}.", "v.blk.{i}."
MMPROJ = MmprojSpec(
    projector_type="internvl",
    keys=mmproj_keys,
    tensors={
        _VISION + "embeddings.cls_token": "v.class_embd",
        _VISION + "embeddings.position_embeddings": "v.position_embd.weight",
        _VISION + "embeddings.patch_embeddings.projection.weight": "v.patch_embd.weight",
        _VISION + "embeddings.patch_embeddings.projection.bias": "v.patch_embd.bias",
        _LAYER + "lambda_1": _BLOCK + "ls1.weight",
        _LAYER + "lambda_2": _BLOCK + "ls2.weight",
        **{
            f"{source}.{kind}": f"{target}.{kind}"
            for kind in ("weight", "bias")
            for source, target in {
                _LAYER + "attention.q_proj": _BLOCK + "attn_q",
                _LAYER + "attention.k_proj": _BLOCK + "attn_k",
                _LAYER + "attention.v_proj": _BLOCK + "attn_v",
                _LAYER + "attention.projection_layer": _BLOCK + "attn_out",
                _LAYER + "layernorm_before": _BLOCK + "ln1",
                _LAYER + "layernorm_after": _BLOCK + "ln2",
                _LAYER + "mlp.fc1": _BLOCK + "ffn_up",
                _LAYER + "mlp.fc2": _BLOCK + "ffn_down",
                "model.multi_modal_projector.layer_norm": "mm.model.mlp.0",
                "model.multi_modal_projector.linear_1": "mm.model.mlp.1",
                "model.multi_modal_projector.linear_2": "mm.model.mlp.3",
            }.items()
        },
    },
)


def adapt_processor(checkpoint: Checkpoint, kind: Any) -> Any:
    """The directory's class of processors, or one that writes tile tags too."""
    from edge_mllm_export.families.internvl.processor import tagged

    return tagged(kind) if _tagged(checkpoint) else kind


def counts(checkpoint: Checkpoint) -> dict[str, Any]:
    """The processor's visual tokens of a tile."""
    return {"image_seq_length": vision_spec(checkpoint).tokens_per_tile}


FAMILY = Family(
    name="internvl",
    architectures=("InternVLForConditionalGeneration",),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=decoder_spec,
    text_config=text_config,
    tower_shapes=tower_shapes,
    build_tower=build_tower,
    adapt_processor=adapt_processor,
    counts=counts,
    mmproj=MMPROJ,
    tile_tags=True,
    licence="MIT, Apache-2.0",
    checkpoints=(
        "OpenGVLab/InternVL3-1B-hf",
        "OpenGVLab/InternVL3-2B-hf",
        "OpenGVLab/InternVL3_5-1B-HF",
        "OpenGVLab/InternVL3_5-2B-HF",
        "OpenGVLab/InternVL2-1B",
        "OpenGVLab/InternVL2-2B",
        "OpenGVLab/InternVL2_5-1B",
        "OpenGVLab/InternVL2_5-2B",
        "OpenGVLab/InternVL3-1B",
        "OpenGVLab/InternVL3-2B",
        "OpenGVLab/InternVL3_5-1B",
        "OpenGVLab/InternVL3_5-2B",
    ),
)
