"""A processor in transformers' terms for models that it does not have: tiles, and a run of image tokens for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import BatchFeature


class TilesProcessor:
    """Pictures and text of one prompt."""

    def __init__(self, image_processor: Any, tokenizer: Any, *, tokens: int, image_token: str, template: str) -> None:
        """Join the parts.

        Args:
            image_processor: Cuts tiles.
            tokenizer: transformers' own.
            tokens: Visual tokens of one tile.
            image_token: The token that stands for a visual token.
            template: Chat template.
        """
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self._tokens, self._image_token, self._template = tokens, image_token, template

    def apply_chat_template(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool = False) -> str:
        """The prompt as text, with one image token for a picture."""
        text: str = self.tokenizer.apply_chat_template(
            messages, chat_template=self._template, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text

    def __call__(
        self,
        text: str,
        images: list[Any] | None = None,
        *,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
    ) -> Any:
        """input_ids, attention_mask, and pixel_values [tiles of all pictures, 3, height, width]."""
        pixels = [self.image_processor([image], return_tensors="np")["pixel_values"][0] for image in images or ()]
        first, *rest = text.split(self._image_token)
        visual = [self._image_token * (len(tiles) * self._tokens) for tiles in pixels]
        whole = first + "".join(run + piece for run, piece in zip(visual, rest, strict=True))
        data = dict(self.tokenizer([whole], add_special_tokens=add_special_tokens))
        if pixels:
            data["pixel_values"] = np.concatenate(pixels)
        return BatchFeature(data, tensor_type=return_tensors)
