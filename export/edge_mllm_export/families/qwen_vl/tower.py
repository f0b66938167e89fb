"""The native-resolution towers of Qwen2-VL and Qwen2.5-VL as one module over the patches of one picture."""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import ALL_ATTENTION_FUNCTIONS, apply_rotary_pos_emb_vision

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
