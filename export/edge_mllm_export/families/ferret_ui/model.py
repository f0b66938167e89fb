"""Ferret-UI as a transformers model: LLaVA whose tiles make one map, before a Llama or a Gemma of its first version.

transformers has no class of it. What differs from its LLaVA is ``prepare_inputs_labels_for_multimodal`` of
apple/ml-ferret (ferretui/model/ferret_arch.py), without region features; and Gemma as it was in transformers 4.39, with
which the models were made: it scales all of its input, where today's scales the rows of tokens alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, GemmaModel, LlavaConfig, LlavaForConditionalGeneration
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava.modeling_llava import LlavaModel


class FerretUIConfig(LlavaConfig):  # type: ignore[misc]  # transformers is not typed here
    """LLaVA's configuration under a name of its own, with ``image_grid_pinpoints`` [[height, width], ...]."""

    model_type = "ferret_ui"


AutoConfig.register(FerretUIConfig.model_type, FerretUIConfig, exist_ok=True)


class ScalingGemma(GemmaModel):  # type: ignore[misc]
    """A Gemma that multiplies whatever it is given, and whose table is a plain one."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)

    def forward(
        self, input_ids: torch.Tensor | None = None, inputs_embeds: torch.Tensor | None = None, **options: Any
    ) -> Any:
        """As GemmaModel's, on scaled embeddings."""
        rows = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        return super().forward(inputs_embeds=rows * self.config.hidden_size**0.5, **options)


class FerretUIModel(LlavaModel):  # type: ignore[misc]
    """Tower, projector and language model without its head."""

    config_class = FerretUIConfig

    def __init__(self, config: FerretUIConfig) -> None:
        super().__init__(config)
        if config.text_config.model_type == "gemma":
            self.language_model = ScalingGemma(config.text_config)

    def get_image_features(self, pixel_values: torch.Tensor, *, image_sizes: torch.Tensor, **options: Any) -> Any:
        """Encode the tiles of all pictures and put each picture's together.

        Args:
            pixel_values: float32 [tiles of all pictures, 3, side, side], of each picture the whole first.
            image_sizes: int64 [pictures, 2], height and width.
            **options: Of LLaVA's.
        """
        outputs = super().get_image_features(pixel_values, **options)
        tiles = torch.stack(outputs.pooler_output)
        side = self.config.vision_config.image_size
        pictures, start = [], 0
        for size in image_sizes.tolist():
            height, width = select_best_resolution(size, self.config.image_grid_pinpoints)
            rows, cols = height // side, width // side
            pictures.append(one_map(tiles[start : start + 1 + rows * cols], rows, cols))
            start += 1 + rows * cols
        outputs.pooler_output = pictures
        return outputs


def one_map(tiles: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """[1 + rows * cols, side * side, width] -> [tokens, width]: the whole's, then the parts' by rows of the picture."""
    side = int(tiles.shape[1] ** 0.5)
    parts = tiles[1:].reshape(rows, cols, side, side, -1).transpose(1, 2)
    return torch.cat((tiles[0], parts.reshape(-1, tiles.shape[2])))


class FerretUIForConditionalGeneration(LlavaForConditionalGeneration):  # type: ignore[misc]
    """The whole model."""

    config_class = FerretUIConfig

    def __init__(self, config: FerretUIConfig) -> None:
        super().__init__(config)
        self.model = FerretUIModel(config)
        self.post_init()  # ties the head to the new model's table
