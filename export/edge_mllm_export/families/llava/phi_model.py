"""transformers' LLaVA with an output head that has a bias."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import LlavaForConditionalGeneration


class LlavaPhiForConditionalGeneration(LlavaForConditionalGeneration):  # type: ignore[misc]  # no types there
    """LLaVA whose language model is a Phi-2."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=True)
