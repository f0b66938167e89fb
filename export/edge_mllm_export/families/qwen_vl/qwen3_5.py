"""Qwen3.5: the tower of Qwen3-VL without layers on the way, and a decoder that is mostly gated delta nets.

The class is transformers' ``Qwen3_5ForConditionalGeneration``; sizes and patches are those of Qwen2-VL's image
processor, the prompt that of ``Qwen3VLProcessor``. Three layers of four keep one state of fixed size instead of keys
and values (Yang et al., arXiv 2412.06464). The block that predicts a second token is left out: no answer needs it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families import published_layout as published
from edge_mllm_export.families.family import MmprojSpec
from edge_mllm_export.families.qwen_vl import qwen2_vl, qwen3_vl
from edge_mllm_export.families.text_config import resolved_config, text_config

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import VisionSpec
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

_LAYERS = "text_config.layer_types"
_KINDS = ("linear_attention", "full_attention")
_WHOLE = (
    "linear_conv_kernel_dim",
    "linear_key_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_value_head_dim",
)


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """One token for ``merge`` x ``merge`` patches.

    Raises:
        CheckpointError: Layers of the tower would feed the decoder, which this decoder's layers do not take.
    """
    given = (checkpoint.config.get("vision_config") or {}).get("deepstack_visual_indexes")
    if given not in (None, []):
        reason = f"is {given!r}, but this language model takes no rows of further layers"
        raise CheckpointError("config.json", "vision_config.deepstack_visual_indexes", reason)
    return qwen3_vl.vision_spec(checkpoint)


def decoder_spec(checkpoint: Checkpoint) -> DecoderSpec:
    """Dimensions of the language model, and how many of its layers keep a state.

    Raises:
        CheckpointError: The layers are of another kind or number, or their heads do not fit together.
    """
    states = state_layers(resolved_config(checkpoint).text_config)
    return replace(qwen2_vl.decoder_spec(checkpoint), state_layers=states)


def state_layers(config: Any) -> int | None:
    """How many layers of a language model of this kind keep a state; None where none does.

    Args:
        config: Of the language model, as transformers' object.

    Raises:
        CheckpointError: As for :func:`decoder_spec`.
    """
    kinds = list(config.layer_types)
    if len(kinds) != config.num_hidden_layers or any(kind not in _KINDS for kind in kinds):
        reason = f"is {kinds!r}, expected {config.num_hidden_layers} of {' and '.join(_KINDS)}"
        raise CheckpointError("config.json", _LAYERS, reason)
    if "full_attention" not in kinds:
        raise CheckpointError("config.json", _LAYERS, "names no layer of full attention, whose cells hold positions")
    for name in _WHOLE:
        if getattr(config, name) < 1:
            raise CheckpointError(
                "config.json", f"text_config.{name}", f"is {getattr(config, name)}, expected 1 or more"
            )
    keys, values = config.linear_num_key_heads, config.linear_num_value_heads
    if values % keys:
        reason = f"is {values}, which {keys} heads of keys cannot share"
        raise CheckpointError("config.json", "text_config.linear_num_value_heads", reason)
    return kinds.count("linear_attention") or None


def mmproj_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata that llama.cpp's libmtmd reads for this tower: that of a Qwen3-VL's, no layer on the way."""
    return qwen3_vl.merger_keys(checkpoint, ())


def mmproj_tensors(checkpoint: Checkpoint) -> dict[str, str | tuple[str, ...]]:  # noqa: ARG001 - as a spec has it
    """Names in the checkpoint -> names in the file."""
    return qwen3_vl.merger_tensors(())


FAMILY = replace(
    qwen3_vl.FAMILY,
    name="qwen3_5",
    architectures=("Qwen3_5ForConditionalGeneration",),
    vision=vision_spec,
    decoder=decoder_spec,
    text_config=text_config,
    left_out=("mtp.",),
    mmproj=MmprojSpec(projector_type="qwen3vl_merger", keys=mmproj_keys, tensors=mmproj_tensors),
    checkpoints=("Qwen/Qwen3.5-0.8B", "Qwen/Qwen3.5-2B", "Qwen/Qwen3.5-4B"),
    licence="Apache-2.0",
    published=published.refused(
        "qwen3_5",
        "this model's layers keep states beside keys and values, and how published ONNX files hand them on is not "
        "known here: export the checkpoint",
    ),
)
