"""Qwen2-VL: a tower that takes a picture at its own size, 2x2 patches to a token, and a Qwen2 with M-RoPE.

The class is transformers' ``Qwen2VLForConditionalGeneration``; sizes and patches are those of its
``Qwen2VLImageProcessorPil``, the prompt that of its ``Qwen2VLProcessor``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle import DecoderSpec, ImageSpec, PatchInput, PromptSpec, TileLayout, VisionSpec
from edge_mllm.tilers import NativeResolution
from edge_mllm_export import published_layout as published
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.family import Family, MmprojSpec, Shapes
from edge_mllm_export.processor_fields import affine, given, resample_name, special_tokens, stop_tokens
from edge_mllm_export.text_config import plain_decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    import torch

    from edge_mllm_export.checkpoint import Checkpoint

IMAGE = "<|image_pad|>"
PREPROCESSOR = "preprocessor_config.json"

_CLASS_DEFAULTS: dict[str, Any] = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
}
"""What Qwen2VLImageProcessorPil uses where preprocessor_config.json says nothing."""
_FIELDS = (*_CLASS_DEFAULTS, "do_resize", "do_rescale", "rescale_factor", "do_normalize", "resample")


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read preprocessor_config.json; ``min_pixels`` and ``max_pixels`` win over ``size``, as in the processor."""
    processor = _CLASS_DEFAULTS | given(checkpoint.processor, *_FIELDS)
    rescale, mean, std = affine(processor)
    size = processor["size"] if isinstance(processor["size"], dict) else {}
    bounds = given(checkpoint.processor, "min_pixels", "max_pixels")
    least = bounds.get("min_pixels", size.get("shortest_edge"))
    most = bounds.get("max_pixels", size.get("longest_edge"))
    unit = patch_input(checkpoint).patch * patch_input(checkpoint).merge
    if not (isinstance(least, int) and isinstance(most, int) and 0 < least <= most and most >= unit**2):
        reason = f"is {most!r} with min_pixels {least!r}, expected {unit**2} or more and 0 < min_pixels <= max_pixels"
        raise CheckpointError(PREPROCESSOR, "max_pixels", reason)
    return ImageSpec(
        tiler=NativeResolution(unit=unit, min_pixels=least, max_pixels=most),
        resample=resample_name(processor, default="bicubic"),
        rescale=rescale,
        mean=mean,
        std=std,
    )


def patch_input(checkpoint: Checkpoint) -> PatchInput:
    """Sizes of patches and tokens, checked against the tower's own."""
    processor = _CLASS_DEFAULTS | given(checkpoint.processor, *_FIELDS)
    vision = resolved_config(checkpoint).vision_config
    for field, expected in (
        ("patch_size", vision.patch_size),
        ("merge_size", vision.spatial_merge_size),
        ("temporal_patch_size", vision.temporal_patch_size),
    ):
        if processor[field] != expected or not isinstance(expected, int) or expected < 1:
            raise CheckpointError(PREPROCESSOR, field, f"is {processor[field]!r}, but the tower has {expected!r}")
    return PatchInput(
        patch=processor["patch_size"], merge=processor["merge_size"], frames=processor["temporal_patch_size"]
    )


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """One token for ``merge`` x ``merge`` patches."""
    patches = patch_input(checkpoint)
    side = patches.patch * patches.merge
    return VisionSpec(tokens_per_tile=1, tile_height=side, tile_width=side, patches=patches)


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """Token ids; the chat template itself writes the marks around a picture."""
    image_token_id = checkpoint.token_id(IMAGE)
    declared = checkpoint.config.get("image_token_id", image_token_id)
    if declared != image_token_id:
        reason = f"is {declared}, but the tokenizer's {IMAGE} is {image_token_id}"
        raise CheckpointError("config.json", "image_token_id", reason)
    return PromptSpec(
        image_token=IMAGE,
        image_token_id=image_token_id,
        placeholder=IMAGE,
        layout=TileLayout(),
        stop_token_ids=stop_tokens(checkpoint, "<|im_end|>"),
        special_tokens=special_tokens(checkpoint),
    )


def decoder_spec(checkpoint: Checkpoint) -> DecoderSpec:
    """Dimensions of the language model, and how its rotary frequencies are shared among time, row and column."""
    config = resolved_config(checkpoint).text_config
    sections = (config.rope_parameters or {}).get("mrope_section")
    if not isinstance(sections, list) or len(sections) != 3:
        raise CheckpointError("config.json", "rope_scaling.mrope_section", f"is {sections!r}, expected three numbers")
    return replace(plain_decoder_spec(config), positions="mrope", mrope_sections=tuple(sections))


def tower_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Every tensor of the tower with its merger."""
    from edge_mllm_export.families import qwen2_vl_tower

    return qwen2_vl_tower.tower_shapes(resolved_config(checkpoint))


def stored_tower(checkpoint: Checkpoint, shapes: Shapes) -> Shapes:
    """All, and the frequencies of rotary positions."""
    vision = resolved_config(checkpoint).vision_config
    hidden = getattr(vision, "embed_dim", None) or vision.hidden_size
    return {**shapes, "model.visual.rotary_pos_emb.inv_freq": (hidden // vision.num_heads // 4,)}


def build_tower(checkpoint: Checkpoint) -> torch.nn.Module:
    """The tower with the checkpoint's weights, float32; nothing of the language model is loaded."""
    from edge_mllm_export.families.qwen2_vl_tower import load_tower

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
        reason = f"is {vision.temporal_patch_size}, but --mmproj can only write {len(_FRAMES)}"
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


def reference_processor(checkpoint: Checkpoint) -> Any:
    """Transformers' own processor on its PIL image backend, without the video processor, which needs torchvision."""
    from edge_mllm_export.families.qwen2_vl_processor import make_processor

    return make_processor(checkpoint)


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
        published.read("settings.image_token", default=IMAGE), ["config.image_token_id"], TileLayout(), ["<|im_end|>"]
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
    text_tensors={"model.language_model.": "model.", "lm_head.": "lm_head."},
    tower_shapes=tower_shapes,
    stored_tower=stored_tower,
    build_tower=build_tower,
    reference_processor=reference_processor,
    published=PUBLISHED,
    mmproj=MMPROJ,
    checkpoints=("Qwen/Qwen2-VL-2B-Instruct",),
    licence="Apache-2.0",
)
