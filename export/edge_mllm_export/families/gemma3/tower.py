"""SigLIP, average pooling and one projection as one module over full tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModel
from transformers.models.gemma3.modeling_gemma3 import Gemma3MultiModalProjector

from edge_mllm_export.families.tower_weights import fill_from_checkpoint, source_shapes

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

PREFIXES = {"vision_tower.": "model.vision_tower.", "projector.": "model.multi_modal_projector."}


class Tower(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """pixels [tiles, 3, height, width] -> visual embeddings [tiles, tokens, n_embd], float32."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.vision_tower = AutoModel.from_config(config.vision_config, attn_implementation="sdpa")
        self.projector = Gemma3MultiModalProjector(config)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode full tiles: patch positions are the stored ones and there is no attention mask."""
        tower = self.vision_tower
        hidden = tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        hidden = hidden + tower.embeddings.position_embedding.weight
        for layer in tower.encoder.layers:
            hidden = layer(hidden, None)
        return self.projector(tower.post_layernorm(hidden))


def empty_tower(config: Any) -> Tower:
    """The tower on the meta device: structure without memory."""
    with torch.device("meta"):
        return Tower(config)


def tower_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Names in the checkpoint -> shapes."""
    return source_shapes(empty_tower(config), PREFIXES)


def load_tower(checkpoint: Checkpoint, config: Any) -> Tower:
    """Build the modules without memory, then fill them tensor by tensor."""
    tower = empty_tower(config)
    fill_from_checkpoint(tower, checkpoint, PREFIXES)
    tower.eval()
    return tower
