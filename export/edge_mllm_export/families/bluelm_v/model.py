"""BlueLM-V-3B's structure as a transformers model: LLaVA with a projector that merges two by two tokens first.

The weights are not public (Lu et al., arXiv 2411.10640), so there is no class of it in transformers. Section 3.1 of the
paper names the parts: SigLIP at 384 px, the 2x2 downsampler of VILA (Lin et al., arXiv 2312.07533), a linear layer that
fuses four tokens into one, a two-layer MLP, a language model of 2.7 billion parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llava.modeling_llava import LlavaModel, LlavaMultiModalProjector

MERGE = 2
"""``MERGE`` x ``MERGE`` neighbouring tokens become one."""


class BlueLMVConfig(LlavaConfig):  # type: ignore[misc]  # transformers is not typed here
    """LLaVA's configuration under a name of its own."""

    model_type = "bluelm_v"


AutoConfig.register(BlueLMVConfig.model_type, BlueLMVConfig, exist_ok=True)


class BlueLMVProjector(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """[tiles, side * side, width of the tower] -> [tiles, tokens_per_tile, width of the language model]."""

    def __init__(self, config: BlueLMVConfig) -> None:
        super().__init__()
        width = config.vision_config.hidden_size
        self.side = config.vision_config.image_size // config.vision_config.patch_size
        self.downsample = nn.Linear(MERGE * MERGE * width, width)
        self.mlp = LlavaMultiModalProjector(config)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Merge, then project; a side that is not even gets a row and a column of zeros."""
        return self.mlp(self.downsample(merge_tokens(features, self.side)))


def merge_tokens(features: torch.Tensor, side: int) -> torch.Tensor:
    """[tiles, side * side, width] -> [tiles, ceil(side / 2) ** 2, 4 * width], rows of a block before columns."""
    tiles, _, width = features.shape
    missing = -side % MERGE
    grid = features.reshape(tiles, side, side, width)
    grid = nn.functional.pad(grid, (0, 0, 0, missing, 0, missing))
    half = (side + missing) // MERGE
    blocks = grid.reshape(tiles, half, MERGE, half, MERGE, width).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(tiles, half * half, MERGE * MERGE * width)


def tokens_per_tile(config: Any) -> int:
    """Visual tokens of one tile: 196 at 384 px with patches of 14 px."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    return int(-(-side // MERGE)) ** 2


class BlueLMVModel(LlavaModel):  # type: ignore[misc]
    """Tower, projector and language model without its head."""

    config_class = BlueLMVConfig

    def __init__(self, config: BlueLMVConfig) -> None:
        super().__init__(config)
        self.multi_modal_projector = BlueLMVProjector(config)


class BlueLMVForConditionalGeneration(LlavaForConditionalGeneration):  # type: ignore[misc]
    """The whole model."""

    config_class = BlueLMVConfig

    def __init__(self, config: BlueLMVConfig) -> None:
        super().__init__(config)
        self.model = BlueLMVModel(config)
