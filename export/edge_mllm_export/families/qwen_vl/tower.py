"""The native-resolution towers of Qwen2-VL and Qwen2.5-VL as one module over the patches of one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLVisionRotaryEmbedding,
)
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    ALL_ATTENTION_FUNCTIONS,
    Qwen2VisionTransformerPretrainedModel,
    Qwen2VLVisionRotaryEmbedding,
    apply_rotary_pos_emb_vision,
)

from edge_mllm_export.families.tower_weights import fill_from_checkpoint, source_shapes

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

PREFIXES = {"visual.": "model.visual."}
_CLASSES = {
    "qwen2_vl": (Qwen2VisionTransformerPretrainedModel, Qwen2VLVisionRotaryEmbedding),
    "qwen2_5_vl": (Qwen2_5_VisionTransformerPretrainedModel, Qwen2_5_VLVisionRotaryEmbedding),
}
"""``model_type`` -> tower and rotary positions."""

Windows = tuple[torch.Tensor, torch.Tensor]
"""Patches of each window [windows, slots], -1 where there is none, and each patch's place in that table [patches]."""


class Tower(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """pixels [patches, values] and their positions [patches, 2] -> visual embeddings [tokens, n_embd], float32.

    One picture at a time. Layers that attend within windows need to be told which patches those are; in all others
    every patch sees every other. The patches themselves stay in the order of the visual tokens throughout.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.whole = tuple(getattr(visual, "fullatt_block_indexes", range(len(visual.blocks))))

    def forward(
        self,
        pixels: torch.Tensor,
        positions: torch.Tensor,
        windows: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode the patches of one picture."""
        visual, merger = self.visual, self.visual.merger
        within = None if windows is None or places is None else (windows, places)
        hidden = visual.patch_embed(pixels[None])  # three axes throughout: exported as MatMul, which can be quantised
        angles = visual.rotary_pos_emb(hidden, positions)
        for number, block in enumerate(visual.blocks):
            seen = None if number in self.whole else within
            hidden = hidden + attend(block.attn, block.norm1(hidden), angles, seen)
            hidden = hidden + block.mlp(block.norm2(hidden))
        return merger.mlp(merger.ln_q(hidden).reshape(1, -1, merger.hidden_size))[0]


def attend(
    module: nn.Module,
    hidden: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    within: Windows | None,
) -> torch.Tensor:
    """Attention of all patches to all, or to those of their window: [1, patches, width] in and out.

    Args:
        module: The attention layer.
        hidden: Its input.
        angles: Cosines and sines of the patches' positions.
        within: The windows, where the layer attends within them.
    """
    count = hidden.shape[1]
    states = module.qkv(hidden).reshape(count, 3, module.num_heads, -1).permute(1, 0, 2, 3)
    query, key = apply_rotary_pos_emb_vision(states[0], states[1], *angles)
    parts, filled = (query, key, states[2]), None
    if within is not None:
        filled = (within[0] >= 0)[:, None, None]
    heads = [(part[None] if within is None else part[within[0]]).transpose(1, 2) for part in parts]
    function = ALL_ATTENTION_FUNCTIONS[module.config._attn_implementation]
    out, _ = function(module, *heads, filled, scaling=module.scaling, dropout=0.0, is_causal=False)
    rows = out.reshape(-1, hidden.shape[2])
    return module.proj(rows[None] if within is None else rows[None, within[1]])


def empty_tower(config: Any) -> Tower:
    """The tower on the meta device: structure without memory."""
    with torch.device("meta"):
        return Tower(_CLASSES[config.model_type][0]._from_config(config.vision_config))


def tower_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Names in the checkpoint -> shapes."""
    return source_shapes(empty_tower(config), PREFIXES)


def load_tower(checkpoint: Checkpoint, config: Any) -> Tower:
    """Build the modules without memory, then fill them tensor by tensor."""
    tower = empty_tower(config)
    fill_from_checkpoint(tower, checkpoint, PREFIXES)
    tower.visual.rotary_pos_emb = _CLASSES[config.model_type][1](config.vision_config)
    tower.visual.patch_embed = as_linear(tower.visual.patch_embed.proj)
    tower.eval()
    return tower


def as_linear(convolution: nn.Conv3d) -> nn.Linear:
    """A convolution whose steps are as long as its kernel, as the matrix product over packed patches that it is."""
    weight = convolution.weight.detach().flatten(1)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=convolution.bias is not None, device="meta")
    linear.weight, linear.bias = nn.Parameter(weight, requires_grad=False), convolution.bias
    return linear
