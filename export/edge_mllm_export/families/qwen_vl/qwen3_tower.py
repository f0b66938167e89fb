"""The native-resolution tower of Qwen3-VL and Qwen3.5: learned positions of any grid, features of layers on the way."""

from __future__ import annotations

import torch
from torch import nn

from edge_mllm_export.families.qwen_vl.tower import attend


class Tower(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """pixels [patches, values] and their positions [patches, 2] -> rows [tokens, row_width], float32.

    One picture at a time; every patch sees every other. A token's row holds its embedding, then what the mergers of the
    layers on the way make of it, in the order of the layers.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        indexes = list(getattr(visual, "deepstack_visual_indexes", ()))
        self.mergers = {layer: indexes.index(layer) for layer in indexes}

    def forward(self, pixels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Encode the patches of one picture."""
        visual = self.visual
        hidden = visual.patch_embed(pixels[None]) + learned_positions(
            visual.pos_embed.weight, positions, visual.num_grid_per_side
        )
        angles = visual.rotary_pos_emb(hidden, positions)
        further = []
        for number, block in enumerate(visual.blocks):
            hidden = hidden + attend(block.attn, block.norm1(hidden), angles, None)
            hidden = hidden + block.mlp(block.norm2(hidden))
            if number in self.mergers:
                further.append(merged(visual.deepstack_merger_list[self.mergers[number]], hidden))
        return torch.cat([merged(visual.merger, hidden), *further], dim=-1)[0]


def learned_positions(table: torch.Tensor, positions: torch.Tensor, side: int) -> torch.Tensor:
    """Position embeddings [1, patches, width] of a grid of any size, between those of the table's square grid.

    Bilinear, with the corners of both grids on each other, as transformers'
    ``get_vision_interpolation_indices_and_weights`` has it.

    Args:
        table: [side * side, width].
        positions: Row and column of every patch, int64 [patches, 2]; the last row and column are among them.
        side: Of the table's grid.
    """
    last = positions.amax(dim=0).clamp(min=1)
    places = positions.float() * (side - 1) / last.float()
    low = places.floor()
    share = places - low
    first = low.long()
    second = (first + 1).clamp(max=side - 1)
    (top, left), (bottom, right) = first.unbind(-1), second.unbind(-1)
    corners = torch.stack([top * side + left, top * side + right, bottom * side + left, bottom * side + right])
    around = torch.nn.functional.embedding(corners, table)  # one look-up: each would store the table once more
    down, across = share[:, :1], share[:, 1:]
    above = around[0] * (1 - across) + around[1] * across
    below = around[2] * (1 - across) + around[3] * across
    return (above * (1 - down) + below * down)[None]


def merged(merger: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Patches [1, patches, width] -> tokens [1, tokens, n_embd]; the norm comes before or after patches are joined."""
    width = merger.hidden_size
    joined = merger.norm(hidden.reshape(1, -1, width)) if merger.use_postshuffle_norm else merger.norm(hidden)
    return merger.linear_fc2(merger.act_fn(merger.linear_fc1(joined.reshape(1, -1, width))))
