"""MiniCPM-V 4.6's tower with its merger as one module over the patches of one tile.

Patches come in the order of the visual tokens, as :mod:`edge_mllm.picture.patches` packs them. So the four that become
one stand together after a transposition within a token, and no table of windows is needed: the order of patches does
not matter to layers in which each sees all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.models.minicpmv4_6.modeling_minicpmv4_6 import (
    ALL_ATTENTION_FUNCTIONS,
    MiniCPMV4_6Merger,
    MiniCPMV4_6VisionModel,
)

from edge_mllm_export.families.tower_weights import fill_from_checkpoint, source_shapes

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

PREFIXES = {"vision_tower.": "model.vision_tower.", "merger.": "model.merger."}
MERGER = "model.vision_tower.vit_merger."
"""Of the tensors that make four patches one between two layers."""


class Tower(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """pixels [patches, values] and their positions [patches, 2] -> visual embeddings [tokens, n_embd], float32.

    Args:
        config: Of the checkpoint.
        merge_at: The layer after which four patches are made one; None where none does.
    """

    def __init__(self, config: Any, merge_at: int | None) -> None:
        super().__init__()
        self.vision_tower = MiniCPMV4_6VisionModel._from_config(config.vision_config)
        self.merger = MiniCPMV4_6Merger(config)
        self.merge_at = merge_at
        self.side = config.vision_config.image_size // config.vision_config.patch_size

    def forward(self, pixels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Encode the patches of one tile."""
        tower = self.vision_tower
        embeddings, patch = tower.embeddings, tower.config.patch_size
        hidden = embeddings.patch_embedding(pixels.reshape(-1, 3, patch, patch)).flatten(1)
        places = self._bucket(positions[:, 0]) * self.side + self._bucket(positions[:, 1])
        hidden = (hidden + embeddings.position_embedding(places))[None]
        for number, layer in enumerate(tower.encoder.layers):
            hidden = hidden + attend(layer.self_attn, layer.layer_norm1(hidden))
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
            if number == self.merge_at:
                hidden = self._merged(hidden)
        hidden = tower.post_layernorm(hidden)
        project = self.merger.mlp[0]
        rows = project.pre_norm(hidden.reshape(1, -1, 4 * hidden.shape[-1]))
        return project.linear_2(project.act(project.linear_1(rows)))[0]

    def _merged(self, hidden: torch.Tensor) -> torch.Tensor:
        """Four neighbouring patches see each other and become one: [1, patches, width] -> [1, patches / 4, width].

        A token's patches are four rows of four.
        """
        merger, width = self.vision_tower.vit_merger, hidden.shape[-1]
        fours = hidden.reshape(-1, 2, 2, 2, 2, width).transpose(2, 3).reshape(-1, 4, width)
        fours = fours + attend(merger.self_attn, merger.layer_norm1(fours))
        rows = merger.pre_norm(fours.reshape(1, -1, 4 * width))
        return merger.linear_2(merger.act(merger.linear_1(rows))) + fours.mean(dim=1)[None]

    def _bucket(self, places: torch.Tensor) -> torch.Tensor:
        """Buckets of rows or columns in the table of positions, int64 [patches].

        A picture's rows are spread over the table's: each falls into the bucket of its fraction of all rows.
        """
        fractions = places.to(torch.float32) / (places.max() + 1).to(torch.float32)
        return (fractions[:, None] >= self.boundaries).to(torch.int64).sum(-1)


def attend(module: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Attention of all rows to all: [batches, rows, width] in and out."""
    heads = [
        projection(hidden).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    ]
    function = ALL_ATTENTION_FUNCTIONS[module.config._attn_implementation]
    found, _ = function(module, *heads, None, scaling=module.scaling, is_causal=False)
    return module.out_proj(found.flatten(2))


def empty_tower(config: Any, merge_at: int | None) -> Tower:
    """Structure without memory."""
    with torch.device("meta"):
        return Tower(config, merge_at)


def tower_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Names in the checkpoint -> shapes."""
    return source_shapes(empty_tower(config, None), PREFIXES)


def stored_shapes(config: Any, shapes: dict[str, tuple[int, ...]], *, merged: bool) -> dict[str, tuple[int, ...]]:
    """Of these tensors those that are computed with, and the edges of buckets."""
    used = {name: shape for name, shape in shapes.items() if merged or not name.startswith(MERGER)}
    return used | {"boundaries": tuple(boundaries(config).shape)}


def boundaries(config: Any) -> torch.Tensor:
    """Edges of the buckets of positions, float32."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    return torch.arange(1 / side, 1.0, 1 / side)


def load_tower(checkpoint: Checkpoint, config: Any, merge_at: int | None) -> Tower:
    """Build the modules without memory, then fill them tensor by tensor."""
    tower = empty_tower(config, merge_at)
    fill_from_checkpoint(tower, checkpoint, PREFIXES)
    tower.register_buffer("boundaries", boundaries(config), persistent=False)
    tower.eval()
    return tower
