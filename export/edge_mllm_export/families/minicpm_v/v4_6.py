"""MiniCPM-V 4.6: adaptive slices of whole visual tokens, a SigLIP that makes four patches one on its way, a Qwen3.5.

The class is transformers' ``MiniCPMV4_6ForConditionalGeneration``; slices are those of its
``MiniCPMV4_6ImageProcessorPil``, marks and ids those of its ``MiniCPMV4_6Processor``. A slice has as many tokens as its
area. Where ``downsample_mode`` is 16x, one stands for 4 x 4 patches: 2 x 2 become one between two layers of the tower,
2 x 2 of those behind its last one. With 4x the first step is left out. Pictures have positions like text: the language
model's sections of rotary frequencies, which config.json does not name, all get the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import DecoderSpec, ImageSpec, PatchInput, PromptSpec, TileLayout, VisionSpec
from edge_mllm.bundle.tilers import AdaptiveSlices
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.family import Family, Shapes
from edge_mllm_export.families.image_settings import STEPS, ImageSettings, image_settings
from edge_mllm_export.families.minicpm_v.mmproj import merger
from edge_mllm_export.families.processor_fields import image_prompt, special_tokens
from edge_mllm_export.families.qwen_vl import qwen3_5
from edge_mllm_export.families.text_config import plain_decoder_spec, resolved_config, text_config

if TYPE_CHECKING:
    import torch

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

_CLASS_DEFAULTS: dict[str, Any] = STEPS | {
    "resample": 3,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "max_slice_nums": 9,
    "scale_resolution": 448,
    "patch_size": 14,
    "slice_mode": True,
    "downsample_mode": "16x",
    "use_image_id": True,
}
"""What MiniCPMV4_6ImageProcessorPil uses where its settings say nothing."""
_CLASSES = {"MiniCPMV4_6ImageProcessor": _CLASS_DEFAULTS}
MERGES = {"16x": 4, "4x": 2}
"""``downsample_mode`` -> side, in patches, of the square that one visual token stands for."""
IMAGE = "<|image_pad|>"
"""Stands for a picture in chat templates, and for a visual token in ids."""
_MARKS = (
    *("image_start_token", "image_end_token", "slice_start_token", "slice_end_token"),
    *("image_id_start_token", "image_id_end_token"),
)
_TEXT = "qwen3_5_text"
_FIXED = {"merge_kernel_size": (2, 2), "merger_times": 1, "drop_vision_last_layer": False}
"""Fields of config.json of which transformers' processor reckons with these values, or its tower does."""


def config_of(checkpoint: Checkpoint) -> Any:
    """The configuration as transformers' object.

    Raises:
        CheckpointError: A value makes a model whose tokens its processor does not count, or no model.
    """
    config = resolved_config(checkpoint)
    for name, only in _FIXED.items():
        found = getattr(config, name, only)  # 4.7 has not all of them
        if (tuple(found) if isinstance(found, list) else found) != only:
            expected = json.dumps(only)
            raise CheckpointError("config.json", name, f"is {json.dumps(found)}, known for this model: {expected}")
    if config.text_config.model_type != _TEXT:  # larger ones are mixtures of experts
        reason = f"is {config.text_config.model_type!r}, known for this model: '{_TEXT}'"
        raise CheckpointError("config.json", "text_config.model_type", reason)
    _check_vision(config.vision_config)
    _check_mode(config)
    return config


def _check_vision(vision: Any) -> None:
    if tuple(vision.window_kernel_size) != (2, 2):
        reason = f"is {json.dumps(list(vision.window_kernel_size))}, known for this model: [2, 2]"
        raise CheckpointError("config.json", "vision_config.window_kernel_size", reason)
    for name in ("image_size", "patch_size"):
        if type(getattr(vision, name)) is not int or getattr(vision, name) < 1:
            reason = f"is {getattr(vision, name)!r}, expected a whole number above 0"
            raise CheckpointError("config.json", f"vision_config.{name}", reason)
    if vision.patch_size > vision.image_size:
        reason = f"is {vision.patch_size}, with image_size {vision.image_size}: there is no patch"
        raise CheckpointError("config.json", "vision_config.patch_size", reason)
    if vision.num_channels != 3:
        raise CheckpointError("config.json", "vision_config.num_channels", f"is {vision.num_channels}, expected 3")


def _check_mode(config: Any) -> None:
    mode, layers = config.downsample_mode, config.vision_config.num_hidden_layers
    if mode not in MERGES:
        raise CheckpointError("config.json", "downsample_mode", f"is {mode!r}, known here: {', '.join(MERGES)}")
    if mode == "16x" and not 0 <= config.insert_layer_id < layers:
        reason = f"is {config.insert_layer_id}, but the tower has {layers} layers and makes four patches one after one"
        raise CheckpointError("config.json", "insert_layer_id", reason)


def _settings(checkpoint: Checkpoint) -> ImageSettings:
    settings, config = image_settings(checkpoint, _CLASSES), config_of(checkpoint)
    settings.require("do_resize", "pictures would keep their size, which need not be whole patches")
    for field, expected in (
        ("patch_size", config.vision_config.patch_size),
        ("downsample_mode", config.downsample_mode),
    ):
        if settings.values[field] != expected:
            reason = f"is {json.dumps(settings.values[field])}, but the model has {json.dumps(expected)}"
            raise settings.fault(field, reason)
    named, own = settings.step("use_image_id"), checkpoint.processor_settings.get("use_image_id")
    if own is not None and own is not named:
        reason = f"is {json.dumps(own)}, but the image processor has {json.dumps(named)}"
        raise CheckpointError("processor_config.json", "use_image_id", reason)
    return settings


def image_spec(checkpoint: Checkpoint) -> ImageSpec:
    """Read the image processor's settings; without slices a picture is what it is with one at most."""
    settings, merge = _settings(checkpoint), _merge(checkpoint)
    patch, most = settings.number("patch_size"), settings.number("max_slice_nums")
    return settings.spec(
        AdaptiveSlices(
            tile=settings.number("scale_resolution", least=patch * merge),
            patch=patch,
            max_slices=most if settings.step("slice_mode") else 1,
            merge=merge,
        ),
    )


def _merge(checkpoint: Checkpoint) -> int:
    return MERGES[config_of(checkpoint).downsample_mode]


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """One token for a square of patches."""
    patches = PatchInput(patch=_settings(checkpoint).number("patch_size"), merge=_merge(checkpoint))
    side = patches.patch * patches.merge
    return VisionSpec(tokens_per_tile=1, tile_height=side, tile_width=side, patches=patches)


def prompt_spec(checkpoint: Checkpoint) -> PromptSpec:
    """Token ids and the marks around pictures and slices, which the tokenizer's settings name.

    Raises:
        CheckpointError: A mark is not named, or is no token of the model.
    """
    names, size = special_tokens(checkpoint), checkpoint.integer("text_config.vocab_size")
    checkpoint.token_id(IMAGE)
    if names.get("image_token") != IMAGE:
        reason = f"is {names.get('image_token')}, but chat templates of this model write {IMAGE}"
        raise CheckpointError("tokenizer_config.json", "extra_special_tokens.image_token", reason)
    layout = _layout(names, numbered=_settings(checkpoint).step("use_image_id"))
    for name in _MARKS:
        number = checkpoint.token_id(names[name])
        if number >= size:
            reason = f"is {size}, but the tokenizer's {names[name]} has the id {number}"
            raise CheckpointError("config.json", "text_config.vocab_size", reason)
    return image_prompt(checkpoint, IMAGE, layout, "<|im_end|>", "image_token_id")


def _layout(names: Mapping[str, str], *, numbered: bool) -> TileLayout:
    for name in _MARKS:
        if not names.get(name):
            raise CheckpointError("tokenizer_config.json", f"extra_special_tokens.{name}", "is missing")
    begin, end = names["image_start_token"], names["image_end_token"]
    return TileLayout(
        before_image=names["image_id_start_token"] + "{picture}" + names["image_id_end_token"] if numbered else "",
        before_tile=names["slice_start_token"],
        after_tile=names["slice_end_token"],
        between_rows="\n",
        before_global=begin,
        after_global=end,
        before_single=begin,
        after_single=end,
    )


def decoder_spec(checkpoint: Checkpoint) -> DecoderSpec:
    """Dimensions of the language model, and how many of its layers keep a state."""
    config = config_of(checkpoint).text_config
    states = qwen3_5.state_layers(config)
    return replace(plain_decoder_spec(config), mrope_sections=sections(config), state_layers=states)


def sections(config: Any) -> tuple[int, ...]:
    """How rotary frequencies are shared among three numbers; equal parts, as the class has them, where nothing says it.

    All three are the same number here, so that it makes no difference; decoders want to be told.
    """
    rotary = config.rope_parameters or {}
    given = rotary.get("mrope_section")
    if given is None:
        half = int(config.head_dim * rotary.get("partial_rotary_factor", 1.0)) // 2
        return tuple((half + rest) // 3 for rest in (2, 1, 0))
    if not isinstance(given, list) or len(given) != 3 or any(type(each) is not int or each < 1 for each in given):
        reason = f"is {given!r}, expected three whole numbers"
        raise CheckpointError("config.json", "text_config.rope_parameters.mrope_section", reason)
    return tuple(given)


def language_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The language model as a plain causal LM, with sections of rotary frequencies."""
    fields = text_config(checkpoint, config_of)
    shares = list(sections(config_of(checkpoint).text_config))
    rotary = {**fields["rope_parameters"], "mrope_section": shares, "mrope_interleaved": True}
    return {**fields, "rope_parameters": rotary}


def tower_shapes(checkpoint: Checkpoint) -> Shapes:
    """Every tensor of tower and merger."""
    from edge_mllm_export.families.minicpm_v import v4_6_tower

    return v4_6_tower.tower_shapes(config_of(checkpoint))


def stored_tower(checkpoint: Checkpoint, shapes: Shapes) -> Shapes:
    """Those that are computed with, and the edges of buckets of positions."""
    from edge_mllm_export.families.minicpm_v import v4_6_tower

    config = config_of(checkpoint)
    return v4_6_tower.stored_shapes(config, shapes, merged=config.downsample_mode == "16x")


def build_tower(checkpoint: Checkpoint) -> torch.nn.Module:
    """Tower and merger with the checkpoint's weights, float32; nothing of the language model is loaded."""
    from edge_mllm_export.families.minicpm_v.v4_6_tower import load_tower

    config = config_of(checkpoint)
    return load_tower(checkpoint, config, config.insert_layer_id if config.downsample_mode == "16x" else None)


FAMILY = Family(
    name="minicpm_v_4_6",
    architectures=("MiniCPMV4_6ForConditionalGeneration",),
    image=image_spec,
    vision=vision_spec,
    prompt=prompt_spec,
    decoder=decoder_spec,
    config=config_of,
    text_config=language_config,
    left_out=("mtp.",),
    tower_shapes=tower_shapes,
    stored_tower=stored_tower,
    build_tower=build_tower,
    mmproj=merger(config_of, image_spec),
    checkpoints=("openbmb/MiniCPM-V-4.6",),
    licence="Apache-2.0",
)
