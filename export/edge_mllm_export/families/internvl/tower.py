"""InternViT with pixel shuffle and projector as one module over full tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edge_mllm_export.families.tower_weights import fill_from_checkpoint, source_shapes

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

PREFIXES = {"vision_tower.": "model.vision_tower.", "projector.": "model.multi_modal_projector."}


class Tower(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """pixels [tiles, 3, height, width] -> visual embeddings [tiles, tokens, n_embd], float32.

    The class token takes part in the attention and is dropped before the pixel shuffle.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        from transformers import AutoModel
        from transformers.models.internvl.modeling_internvl import InternVLModel, InternVLMultiModalProjector

        self.vision_tower = AutoModel.from_config(config.vision_config, attn_implementation="sdpa")
        self.projector = InternVLMultiModalProjector(config)
        self.ratio = config.downsample_ratio
        self.shuffle = InternVLModel.pixel_shuffle
        self.register_buffer("positions", torch.empty(0), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode full tiles."""
        embeddings = self.vision_tower.embeddings
        patches = embeddings.patch_embeddings(pixels)
        hidden = torch.cat((embeddings.cls_token.expand(pixels.shape[0], -1, -1), patches), dim=1)
        if self.positions.numel():
            hidden = hidden + self.positions
        for layer in self.vision_tower.encoder.layer:
            hidden = layer(hidden)
        hidden = self.vision_tower.layernorm(hidden)[:, 1:]
        side = round(hidden.shape[1] ** 0.5)
        square = hidden.reshape(-1, side, side, hidden.shape[-1])
        shuffled = self.shuffle(self, square, scale_factor=self.ratio)
        return self.projector(shuffled.flatten(1, 2))


def empty_tower(config: Any) -> Tower:
    """The tower on the meta device: structure without memory."""
    with torch.device("meta"):
        return Tower(config)


def tower_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Names in the checkpoint -> shapes."""
    return source_shapes(empty_tower(config), PREFIXES)


def load_tower(checkpoint: Checkpoint, config: Any, *, tile: int) -> Tower:
    """Build the modules without memory, then fill them tensor by tensor."""
    tower = empty_tower(config)
    fill_from_checkpoint(tower, checkpoint, PREFIXES)
    embeddings = tower.vision_tower.embeddings
    if embeddings.position_embeddings is None:
        tower.positions = torch.empty(0)
        tower.eval()
        return tower
    patches = (tile // embeddings.patch_size[0]) * (tile // embeddings.patch_size[1])
    with torch.inference_mode():
        rows = torch.empty(1, patches + 1, embeddings.position_embeddings.shape[-1])
        tower.positions = embeddings.interpolate_pos_encoding(rows, tile, tile).clone()
    tower.eval()
    return tower
