"""Qwen3-VL: a tower whose layers on the way feed the first layers of a Qwen3, with interleaved M-RoPE.

The class is transformers' ``Qwen3VLForConditionalGeneration``; sizes and patches are those of Qwen2-VL's image
processor, the prompt that of its ``Qwen3VLProcessor``. The features of some layers of the tower are added to what the
first layers of the language model give, at the places of visual tokens (DeepStack, Meng et al., arXiv 2406.04334).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families import published_layout as published
from edge_mllm_export.families.family import MmprojSpec
from edge_mllm_export.families.qwen_vl import qwen2_vl
from edge_mllm_export.families.text_config import DEEPSTACK, resolved_config, text_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_mllm.bundle.spec import DecoderSpec, VisionSpec
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

_LAYERS = "vision_config.deepstack_visual_indexes"
_TABLE = "vision_config.num_position_embeddings"


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """One token for ``merge`` x ``merge`` patches."""
    vision = resolved_config(checkpoint).vision_config
    count = vision.num_position_embeddings
    if count < 1 or math.isqrt(count) ** 2 != count:
        raise CheckpointError("config.json", _TABLE, f"is {count}, which is no square")
    width = resolved_config(checkpoint).text_config.hidden_size
    if vision.out_hidden_size != width:
        reason = f"is {vision.out_hidden_size}, but the language model is {width} wide"
        raise CheckpointError("config.json", "vision_config.out_hidden_size", reason)
    return qwen2_vl.vision_spec(checkpoint)


def deepstack_indexes(checkpoint: Checkpoint) -> list[int]:
    """Layers of the tower whose features go to the language model.

    Raises:
        CheckpointError: One is no layer or named twice, or there are more than the language model has layers.
    """
    config = resolved_config(checkpoint)
    depth, layers = config.vision_config.depth, config.text_config.num_hidden_layers
    found = list(config.vision_config.deepstack_visual_indexes)
    if any(not isinstance(layer, int) or not 0 <= layer < depth for layer in found) or len(set(found)) < len(found):
        raise CheckpointError("config.json", _LAYERS, f"is {found!r}, expected different layers of {depth}")
    if len(found) >= layers:
        reason = f"names {len(found)} layers, but the language model has {layers}, the last of which can take none"
        raise CheckpointError("config.json", _LAYERS, reason)
    return found


def decoder_spec(checkpoint: Checkpoint) -> DecoderSpec:
    """Dimensions of the language model, and how many of its layers take rows of their own."""
    return replace(qwen2_vl.decoder_spec(checkpoint), deepstack_layers=len(deepstack_indexes(checkpoint)) or None)


def language_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The language model as a plain causal LM, with the number of layers that take rows of their own.

    transformers' class of this configuration has no field for the tokens that begin and end a text, but takes them.
    """
    text = resolved_config(checkpoint).text_config
    ends = {name: getattr(text, name, None) for name in ("bos_token_id", "eos_token_id")}
    known = {name: value for name, value in ends.items() if value is not None}
    return text_config(checkpoint) | known | {DEEPSTACK: len(deepstack_indexes(checkpoint))}


_LIBMTMD_MERGE = 2


def mmproj_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata that llama.cpp's libmtmd reads for this tower; floats are float, sizes are int.

    llama.cpp's converter takes the language model's epsilon for the tower's norms. The picture's size is that of the
    table of positions.
    """
    return merger_keys(checkpoint, deepstack_indexes(checkpoint))


def merger_keys(checkpoint: Checkpoint, indexes: Sequence[int]) -> dict[str, Any]:
    """:func:`mmproj_keys` of a tower of which the layers ``indexes`` feed the language model."""
    config = resolved_config(checkpoint)
    vision = config.vision_config
    if vision.spatial_merge_size != _LIBMTMD_MERGE:
        reason = f"is {vision.spatial_merge_size}, but `mmproj` can only write {_LIBMTMD_MERGE}"
        raise CheckpointError("config.json", "vision_config.spatial_merge_size", reason)
    return {
        **qwen2_vl.tower_keys(checkpoint),
        "clip.vision.image_size": math.isqrt(vision.num_position_embeddings) * vision.patch_size,
        "clip.vision.embedding_length": vision.hidden_size,
        "clip.vision.feed_forward_length": vision.intermediate_size,
        "clip.vision.attention.layer_norm_epsilon": float(config.text_config.rms_norm_eps),
        "clip.use_gelu": True,
        "clip.vision.spatial_merge_size": vision.spatial_merge_size,
        "clip.vision.is_deepstack_layers": [layer in indexes for layer in range(vision.depth)],
    }


def mmproj_tensors(checkpoint: Checkpoint) -> dict[str, str | tuple[str, ...]]:
    """Names in the checkpoint -> names in the file; a merger goes by the number of the layer that it follows."""
    return merger_tensors(deepstack_indexes(checkpoint))


def merger_tensors(indexes: Sequence[int]) -> dict[str, str | tuple[str, ...]]:
    """:func:`mmproj_tensors` of a tower of which the layers ``indexes`` feed the language model."""
    block, parts = "model.visual.blocks.{i}.", {"mlp.linear_fc1": "ffn_up", "mlp.linear_fc2": "ffn_down"}
    parts |= {"attn.qkv": "attn_qkv", "attn.proj": "attn_out", "norm1": "ln1", "norm2": "ln2"}
    pairs = {f"{block}{source}": f"v.blk.{{i}}.{target}" for source, target in parts.items()}
    merger = {"norm": "v.post_ln", "linear_fc1": "mm.0", "linear_fc2": "mm.2"}
    pairs |= {f"model.visual.merger.{source}": target for source, target in merger.items()}
    for number, layer in enumerate(indexes):
        source, target = f"model.visual.deepstack_merger_list.{number}.", f"v.deepstack.{layer}."
        pairs |= {f"{source}{name}": f"{target}{name.removeprefix('linear_')}" for name in merger}
    return {
        "model.visual.patch_embed.proj.weight": ("v.patch_embd.weight", "v.patch_embd.weight.1"),
        "model.visual.patch_embed.proj.bias": "v.patch_embd.bias",
        "model.visual.pos_embed.weight": "v.position_embd.weight",
        **{f"{source}.{kind}": f"{target}.{kind}" for source, target in pairs.items() for kind in ("weight", "bias")},
    }


FAMILY = replace(
    qwen2_vl.FAMILY,
    name="qwen3_vl",
    architectures=("Qwen3VLForConditionalGeneration",),
    vision=vision_spec,
    decoder=decoder_spec,
    text_config=language_config,
    mmproj=MmprojSpec(projector_type="qwen3vl_merger", keys=mmproj_keys, tensors=mmproj_tensors),
    checkpoints=("Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen3-VL-4B-Instruct"),
    licence="Apache-2.0",
    published=published.refused(
        "qwen3_vl",
        "this model's tower feeds the first layers of its decoder too, and how published ONNX files hand that over is "
        "not known here: export the checkpoint",
    ),
)
