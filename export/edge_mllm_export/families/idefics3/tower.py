"""The SigLIP tower with its connector as one module over full tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edge_mllm_export.families.tower_weights import fill_from_checkpoint, source_shapes

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint

PREFIXES = {"vision_model.": "model.vision_model.", "connector.": "model.connector."}


class Tower(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """pixels [tiles, 3, height, width] -> visual embeddings [tiles, tokens, n_embd], float32.

    Every tile is full, so there is no attention mask, and the patch positions are a constant.
    """

    def __init__(self, vision_model: nn.Module, connector: nn.Module) -> None:
        super().__init__()
        self.vision_model = vision_model
        self.connector = connector
        self.register_buffer("position_ids", torch.empty(0, dtype=torch.int64), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode full tiles."""
        embeddings = self.vision_model.embeddings
        hidden = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        hidden = hidden + embeddings.position_embedding(self.position_ids)
        for layer in self.vision_model.encoder.layers:
            hidden = layer(hidden, None)
        return self.connector(self.vision_model.post_layernorm(hidden))


def empty_tower(config: Any) -> Tower:
    """The tower on the meta device: structure without memory."""
    with torch.device("meta"):
        return Tower(_vision_model(config), _connector(config))


def tower_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Names in the checkpoint -> shapes."""
    return source_shapes(empty_tower(config), PREFIXES)


def load_tower(checkpoint: Checkpoint, config: Any, *, tile: int) -> Tower:
    """Build the modules without memory, then fill them tensor by tensor."""
    tower = empty_tower(config)
    fill_from_checkpoint(tower, checkpoint, PREFIXES)
    tower.position_ids = _position_ids(tower.vision_model.embeddings, tile)
    tower.eval()
    return tower


def _vision_model(config: Any) -> nn.Module:
    from transformers import AutoModel

    return AutoModel.from_config(config.vision_config, attn_implementation="sdpa")


def _connector(config: Any) -> nn.Module:
    if config.model_type == "smolvlm":
        from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector

        return SmolVLMConnector(config)
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

    return Idefics3Connector(config)


def _position_ids(embeddings: nn.Module, tile: int) -> torch.Tensor:
    """Ask the model's own module which positions a full tile gets, int64 [1, patches].

    They are not simply 0, 1, 2, ...: the module sorts float32 fractions into buckets, and rounding may shift some.
    """
    seen: list[torch.Tensor] = []
    hook = embeddings.position_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    side = tile // embeddings.patch_size
    with torch.inference_mode():
        embeddings(torch.zeros(1, 3, tile, tile), torch.ones(1, side, side, dtype=torch.bool))
    hook.remove()
    return seen[0].clone()
