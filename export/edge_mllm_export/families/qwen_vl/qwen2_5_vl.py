"""Qwen2.5-VL: Qwen2-VL with a gated tower, most of whose layers attend within windows of the picture.

The class is transformers' ``Qwen2_5_VLForConditionalGeneration``; sizes, patches and prompt are those of Qwen2-VL.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.family import MmprojSpec
from edge_mllm_export.families.qwen_vl import qwen2_vl
from edge_mllm_export.families.text_config import resolved_config

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import PatchInput, VisionSpec
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

_WHOLE = "vision_config.fullatt_block_indexes"


def vision_spec(checkpoint: Checkpoint) -> VisionSpec:
    """One token for ``merge`` x ``merge`` patches; windows of whole tokens."""
    spec = qwen2_vl.vision_spec(checkpoint)
    assert spec.patches is not None  # noqa: S101  (made above)
    return replace(spec, patches=replace(spec.patches, window=_window(checkpoint, spec.patches)))


def _window(checkpoint: Checkpoint, patches: PatchInput) -> int:
    """Side of a window in patches: whole visual tokens, as the tower rounds them."""
    vision = resolved_config(checkpoint).vision_config
    side: int = vision.window_size // patches.merge // patches.patch * patches.merge
    if side < 1:
        reason = f"is {vision.window_size} pixels, less than a visual token has"
        raise CheckpointError("config.json", "vision_config.window_size", reason)
    whole = vision.fullatt_block_indexes
    if any(not isinstance(layer, int) or not 0 <= layer < vision.depth for layer in whole):
        raise CheckpointError("config.json", _WHOLE, f"is {list(whole)!r}, but the tower has {vision.depth} layers")
    return side


def mmproj_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata that llama.cpp's libmtmd reads for this tower; floats are float, sizes are int.

    libmtmd takes every n-th layer for one that sees the whole picture, and its windows for 112 pixels wide.
    """
    vision = resolved_config(checkpoint).vision_config
    whole = list(vision.fullatt_block_indexes)
    period = whole[0] + 1 if whole else 0
    if not whole or whole != list(range(period - 1, whole[-1] + 1, period)):
        raise CheckpointError("config.json", _WHOLE, f"is {whole!r}; `mmproj` can only write every n-th layer")
    if vision.window_size != _LIBMTMD_WINDOW:
        reason = f"is {vision.window_size}; `mmproj` can only write {_LIBMTMD_WINDOW}"
        raise CheckpointError("config.json", "vision_config.window_size", reason)
    return {
        **qwen2_vl.tower_keys(checkpoint),
        "clip.vision.embedding_length": vision.hidden_size,
        "clip.vision.feed_forward_length": vision.intermediate_size,
        "clip.use_silu": True,
        "clip.vision.n_wa_pattern": period,
    }


_LIBMTMD_WINDOW = 112

FAMILY = replace(
    qwen2_vl.FAMILY,
    name="qwen2_5_vl",
    architectures=("Qwen2_5_VLForConditionalGeneration",),
    vision=vision_spec,
    mmproj=MmprojSpec(
        projector_type="qwen2.5vl_merger",
        keys=mmproj_keys,
        tensors=qwen2_vl.tower_tensors(
            {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"},
            qwen2_vl.norm_tensors("weight"),
        ),
    ),
    checkpoints=("Qwen/Qwen2.5-VL-3B-Instruct",),
    licence="Qwen Research",
    # The published tower finds its windows itself, so nothing but the name differs.
    published={**qwen2_vl.PUBLISHED, "model_types": ["qwen2_5_vl"]},
)
