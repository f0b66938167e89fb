"""Structure of a text model that transformers has only inside an image-text class, as if it were a causal LM."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import AutoModel


class HeadedModel(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """``model.*`` and ``lm_head.weight``, as every plain causal LM has them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.model = AutoModel.from_config(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def get_output_embeddings(self) -> nn.Module:
        """The output head, under transformers' name."""
        return self.lm_head
