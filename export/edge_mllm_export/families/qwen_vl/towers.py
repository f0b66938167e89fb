"""The native-resolution towers of this line, by the checkpoint's ``model_type``: built empty, then filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLVisionRotaryEmbedding,
)
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel,
    Qwen2VLVisionRotaryEmbedding,
)
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5VisionModel, Qwen3_5VisionRotaryEmbedding
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel, Qwen3VLVisionRotaryEmbedding

from edge_mllm_export.families.qwen_vl.qwen3_tower import Tower as Qwen3Tower
from edge_mllm_export.families.qwen_vl.tower import Tower as Qwen2Tower
from edge_mllm_export.families.tower_weights import fill_from_checkpoint, source_shapes

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

_PREFIXES = {"visual.": "model.visual."}
_KINDS: dict[str, tuple[type[nn.Module], Any, Any]] = {
    "qwen2_vl": (Qwen2Tower, Qwen2VisionTransformerPretrainedModel, Qwen2VLVisionRotaryEmbedding),
    "qwen2_5_vl": (Qwen2Tower, Qwen2_5_VisionTransformerPretrainedModel, Qwen2_5_VLVisionRotaryEmbedding),
    "qwen3_vl": (Qwen3Tower, Qwen3VLVisionModel, Qwen3VLVisionRotaryEmbedding),
    "qwen3_5": (Qwen3Tower, Qwen3_5VisionModel, Qwen3_5VisionRotaryEmbedding),
}
"""``model_type`` -> our module, and transformers' tower and rotary positions that it is made of."""


def tower_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Names in the checkpoint -> shapes."""
    return source_shapes(_empty_tower(config), _PREFIXES)


def load_tower(checkpoint: Checkpoint, config: Any) -> nn.Module:
    """Build the modules without memory, then fill them tensor by tensor."""
    tower = _empty_tower(config)
    fill_from_checkpoint(tower, checkpoint, _PREFIXES)
    tower.visual.rotary_pos_emb = _KINDS[config.model_type][2](config.vision_config)
    tower.visual.patch_embed = _as_linear(tower.visual.patch_embed.proj)
    return tower.eval()


def _empty_tower(config: Any) -> nn.Module:
    """The tower on the meta device: structure without memory."""
    module, visual, _ = _KINDS[config.model_type]
    with torch.device("meta"):
        return module(visual._from_config(config.vision_config))


def _as_linear(convolution: nn.Conv3d) -> nn.Linear:
    """A convolution whose steps are as long as its kernel, as the matrix product over packed patches that it is."""
    weight = convolution.weight.detach().flatten(1)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=convolution.bias is not None, device="meta")
    linear.weight, linear.bias = nn.Parameter(weight, requires_grad=False), convolution.bias
    return linear
