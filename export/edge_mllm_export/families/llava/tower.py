"""A CLIP or SigLIP tower with a two-layer projector as one module over full tiles."""

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

    The projector sees the states behind one or several layers; layers after the last of them are left out.
    """

    def __init__(self, config: Any, projector: type[nn.Module]) -> None:
        super().__init__()
        from transformers import AutoModel

        self.vision_tower = AutoModel.from_config(config.vision_config, attn_implementation="sdpa")
        self.projector = projector(config)
        self.taken = taken_layers(config)
        self.drop_first = config.vision_feature_select_strategy == "default"

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode full tiles."""
        embeddings = self.vision_tower.embeddings
        hidden = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        if hasattr(embeddings, "class_embedding"):
            hidden = torch.cat((embeddings.class_embedding.expand(pixels.shape[0], 1, -1), hidden), dim=1)
        hidden = hidden + embeddings.position_embedding.weight
        if hasattr(self.vision_tower, "pre_layrnorm"):
            hidden = self.vision_tower.pre_layrnorm(hidden)
        states = [hidden]
        for layer in self.vision_tower.encoder.layers:
            states.append(layer(states[-1], None))
        taken = [states[number][:, int(self.drop_first) :] for number in self.taken]
        return self.projector(torch.cat(taken, dim=-1))


def taken_layers(config: Any) -> tuple[int, ...]:
    """Numbers of the states that the projector sees: 0 is before the first layer, n behind the n-th."""
    asked = config.vision_feature_layer
    count = config.vision_config.num_hidden_layers + 1
    return tuple(number % count for number in (asked if isinstance(asked, list | tuple) else [asked]))


def whole_tower(config: Any, projector: type[nn.Module]) -> Tower:
    """The tower with every module of the checkpoint, on the meta device: structure without memory."""
    with torch.device("meta"):
        return Tower(config, projector)


def tower_shapes(config: Any, projector: type[nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names in the checkpoint -> shapes, layers that are not used included."""
    return source_shapes(whole_tower(config, projector), PREFIXES)


def stored_shapes(config: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Of these tensors the projector's, and those of the tower that are used."""
    used = source_shapes(used_tower(config, nn.Identity), PREFIXES)
    return {name: shape for name, shape in shapes.items() if name in used or name.startswith(PREFIXES["projector."])}


def used_tower(config: Any, projector: type[nn.Module]) -> Tower:
    """As :func:`whole_tower`, without what the projector does not see."""
    tower = whole_tower(config, projector)
    vision = tower.vision_tower
    vision.encoder.layers = vision.encoder.layers[: max(tower.taken)]
    vision.post_layernorm = nn.Identity()
    if hasattr(vision, "head"):
        vision.head = nn.Identity()
    return tower


def load_tower(checkpoint: Checkpoint, config: Any, projector: type[nn.Module]) -> Tower:
    """Build the modules that are used without memory, then fill them tensor by tensor."""
    tower = used_tower(config, projector)
    fill_from_checkpoint(tower, checkpoint, PREFIXES)
    tower.eval()
    return tower
