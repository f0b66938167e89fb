"""Qwen2-VL: a tower that takes a picture at its own size, 2x2 patches to a token, and a Qwen2 with M-RoPE.

The class is transformers' ``Qwen2VLForConditionalGeneration``; sizes and patches are those of its
``Qwen2VLImageProcessorPil``, the prompt that of its ``Qwen2VLProcessor``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import DecoderSpec, ImageSpec, PatchInput, PromptSpec, TileLayout, VisionSpec
from edge_mllm.bundle.tilers import NativeResolution
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families import published_layout as published
from edge_mllm_export.families.family import Family, MmprojSpec, Shapes
from edge_mllm_export.families.image_settings import STEPS, ImageSettings, image_settings
from edge_mllm_export.families.processor_fields import image_prompt
from edge_mllm_export.families.text_config import plain_decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    import torch

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

IMAGE = "<|image_pad|>"
PICTURE = f"<|vision_start|>{IMAGE}<|vision_end|>"
"""What a user writes for a picture."""

_CLASS_DEFAULTS: dict[str, Any] = STEPS | {
    "default_to_square": False,
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
    "min_pixels": None,
    "max_pixels": None,
}
"""What Qwen2VLImageProcessorPil uses where preprocessor_config.json says nothing."""
_CLASSES = {"Qwen2VLImageProcessor": _CLASS_DEFAULTS}


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json."""
    settings = image_settings(checkpoint, _CLASSES)
    settings.require("do_resize", "pictures would keep their size, which need not be whole patches")
    unit = patch_input(checkpoint).patch * patch_input(checkpoint).merge
    least, most = _bounds(settings)
    if not (least <= most and most >= unit**2):
        reason = f"is {most!r} with min_pixels {least!r}, expected {unit**2} or more and 0 < min_pixels <= max_pixels"
        raise settings.fault("max_pixels", reason)
    return settings.spec(NativeResolution(unit=unit, min_pixels=least, max_pixels=most))


def _bounds(settings: ImageSettings) -> tuple[int, int]:
    """Least and most pixels: ``min_pixels`` and ``max_pixels`` win over ``size``, and over these names in it."""
    given = settings.values["size"]
    if not isinstance(given, dict | None):
        raise settings.fault("size", f"is {json.dumps(given)}, expected shortest_edge and longest_edge")
    size: dict[str, Any] = dict(_CLASS_DEFAULTS["size"] if given is None else given)
    for field, name in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if settings.values[field] is not None:
            size[name] = settings.number(field)
            size.pop(field, None)
    if set(size) != {"shortest_edge", "longest_edge"}:
        raise settings.fault("size", f"is {json.dumps(given)}, expected shortest_edge and longest_edge")
    for name, value in size.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise settings.fault(f"size.{name}", f"is {json.dumps(value)}, expected a whole number above 0")
    return size["shortest_edge"], size["longest_edge"]


def patch_input(checkpoint: Checkpoint) -> PatchInput:
    """Sizes of patches and tokens, checked against the tower's own."""
    settings = image_settings(checkpoint, _CLASSES)
    vision = resolved_config(checkpoint).vision_config
    for field, expected in (
        ("patch_size", vision.patch_size),
        ("merge_size", vision.spatial_merge_size),
        ("temporal_patch_size", vision.temporal_patch_size),
    ):
        if settings.number(field) != expected or not isinstance(expected, int) or expected < 1:
            raise settings.fault(field, f"is {settings.values[field]!r}, but the tower has {expected!r}")
    return PatchInput(
        patch=settings.number("patch_size"),
        merge=settings.number("merge_size"),
        frames=settings.number("temporal_patch_size"),
    )


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """One token for ``merge`` x ``merge`` patches."""
    patches = patch_input(checkpoint)
    side = patches.patch * patches.merge
    return VisionSpec(tokens_per_tile=1, tile_height=side, tile_width=side, patches=patches)


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """Token ids; the chat template itself writes the marks around a picture."""
    return image_prompt(checkpoint, IMAGE, TileLayout(), "<|im_end|>", "image_token_id")


def decoder_spec(checkpoint: Checkpoint) -> DecoderSpec:
    """Dimensions of the language model, and how its rotary frequencies are shared among time, row and column."""
    config = resolved_config(checkpoint).text_config
    sections = (config.rope_parameters or {}).get("mrope_section")
    if not isinstance(sections, list) or len(sections) != 3:
        raise CheckpointError("config.json", "rope_scaling.mrope_section", f"is {sections!r}, expected three numbers")
    return replace(plain_decoder_spec(config), positions="mrope", mrope_sections=tuple(sections))


def tower_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Every tensor of the tower with its mergers."""
    from edge_mllm_export.families.qwen_vl import towers

    return towers.tower_shapes(resolved_config(checkpoint))


def stored_tower(checkpoint: Checkpoint, shapes: Shapes) -> Shapes:
    """All, and the frequencies of rotary positions."""
    vision = resolved_config(checkpoint).vision_config
    hidden = getattr(vision, "embed_dim", None) or vision.hidden_size
    return {**shapes, "model.visual.rotary_pos_emb.inv_freq": (hidden // vision.num_heads // 4,)}


def build_tower(checkpoint: Checkpoint) -> torch.nn.Module:
    """The tower with the checkpoint's weights, float32; nothing of the language model is loaded."""
    from edge_mllm_export.families.qwen_vl.towers import load_tower

    return load_tower(checkpoint, resolved_config(checkpoint))


def mmproj_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata that llama.cpp's libmtmd reads for this tower; floats are float, sizes are int.

    llama.cpp's converter takes the decoder's width, which this tower's configuration calls ``hidden_size``, for the
    width of the gate; libmtmd goes by the tensors.
    """
    vision = resolved_config(checkpoint).vision_config
    return {
        **tower_keys(checkpoint),
        "clip.vision.embedding_length": vision.embed_dim,
        "clip.vision.feed_forward_length": vision.hidden_size,
    }


def tower_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """What both towers of this kind have."""
    config = resolved_config(checkpoint)
    vision, image = config.vision_config, image_spec(checkpoint)
    if patch_input(checkpoint).frames != len(_FRAMES):
        reason = f"is {vision.temporal_patch_size}, but `mmproj` can only write {len(_FRAMES)}"
        raise CheckpointError("config.json", "vision_config.temporal_patch_size", reason)
    return {
        "clip.vision.projection_dim": config.text_config.hidden_size,
        "clip.vision.image_size": _IMAGE_SIZE,
        "clip.vision.patch_size": vision.patch_size,
        "clip.vision.block_count": vision.depth,
        "clip.vision.attention.head_count": vision.num_heads,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": image.mean,
        "clip.vision.image_std": image.std,
    }


_IMAGE_SIZE = 560
"""A size that llama.cpp's converter writes and libmtmd does not need for pictures of any size."""
_FRAMES = ("v.patch_embd.weight", "v.patch_embd.weight.1")


def tower_tensors(linear: dict[str, str], norms: dict[str, str]) -> dict[str, str | tuple[str, ...]]:
    """Names in the checkpoint -> names in the file, for towers of this kind.

    Args:
        linear: The layer's own matrices, with bias.
        norms: Its norms and the merger's, as full names with the kinds of their tensors.
    """
    block, target = "model.visual.blocks.{i}.", "v.blk.{i}."
    merger = {f"model.visual.merger.mlp.{number}": f"mm.{number}" for number in (0, 2)}
    pairs = {f"{block}{name}": f"{target}{value}" for name, value in ({"attn.proj": "attn_out"} | linear).items()}
    return {
        "model.visual.patch_embed.proj.weight": _FRAMES,
        **{
            f"{block}attn.qkv.{kind}": tuple(f"{target}attn_{name}.{kind}" for name in "qkv")
            for kind in ("weight", "bias")
        },
        **{
            f"{name}.{kind}": f"{value}.{kind}"
            for kind in ("weight", "bias")
            for name, value in (pairs | merger).items()
        },
        **norms,
    }


_NORMS = {
    "model.visual.blocks.{i}.norm1": "v.blk.{i}.ln1",
    "model.visual.blocks.{i}.norm2": "v.blk.{i}.ln2",
    "model.visual.merger.ln_q": "v.post_ln",
}


def norm_tensors(*kinds: str) -> dict[str, str]:
    """The norms of layers and merger."""
    return {f"{name}.{kind}": f"{value}.{kind}" for kind in kinds for name, value in _NORMS.items()}


MMPROJ = MmprojSpec(
    projector_type="qwen2vl_merger",
    keys=mmproj_keys,
    tensors=tower_tensors({"mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down"}, norm_tensors("weight", "bias")),
)


_PATCHES = {
    "patch": published.read("processor.patch_size", default=_CLASS_DEFAULTS["patch_size"]),
    "merge": published.read("processor.merge_size", default=_CLASS_DEFAULTS["merge_size"]),
    "frames": published.read("processor.temporal_patch_size", default=_CLASS_DEFAULTS["temporal_patch_size"]),
}
_UNIT = {"product": [_PATCHES["patch"], _PATCHES["merge"]]}
PUBLISHED = {
    "model_types": ["qwen2_vl"],
    "require": published.required("do_resize", "do_rescale", "do_normalize"),
    "image": published.image(
        {
            "kind": "native_resolution",
            "unit": _UNIT,
            "min_pixels": published.read(
                "processor.min_pixels",
                "processor.size.shortest_edge",
                default=_CLASS_DEFAULTS["size"]["shortest_edge"],
            ),
            "max_pixels": published.read(
                "processor.max_pixels", "processor.size.longest_edge", default=_CLASS_DEFAULTS["size"]["longest_edge"]
            ),
        },
        resample="bicubic",
        mean=_CLASS_DEFAULTS["image_mean"],
        std=_CLASS_DEFAULTS["image_std"],
    ),
    "vision": {"tokens_per_tile": 1, "tile_height": _UNIT, "tile_width": _UNIT, "patches": _PATCHES},
    "prompt": published.prompt(
        published.read("settings.image_token", default=IMAGE),
        ["config.image_token_id"],
        TileLayout(),
        ["<|im_end|>"],
        PICTURE,
    ),
    "decoder": published.decoder(
        positions="mrope",
        mrope_sections=published.read(
            *(
                f"config.{section}{field}.mrope_section"
                for field in ("rope_scaling", "rope_parameters")
                for section in ("text_config.", "")
            )
        ),
    ),
}

FAMILY = Family(
    name="qwen2_vl",
    architectures=("Qwen2VLForConditionalGeneration",),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=decoder_spec,
    text_config=text_config,
    tower_shapes=tower_shapes,
    stored_tower=stored_tower,
    build_tower=build_tower,
    picture=PICTURE,
    published=PUBLISHED,
    mmproj=MMPROJ,
    checkpoints=("Qwen/Qwen2-VL-2B-Instruct",),
    licence="Apache-2.0",
)
