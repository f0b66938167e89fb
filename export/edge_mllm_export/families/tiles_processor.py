"""A processor written from a publisher's code, for models that transformers does not have, with its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.Image import Image
from transformers import BatchFeature

from edge_mllm.arrays import FloatArray

Message = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TilesProcessor:
    """Pictures as tiles, and a run of image tokens for them in the text of one prompt."""

    tokenizer: Any
    """transformers' own."""
    write: Callable[[Sequence[Message], bool], str]
    """The conversation as text, with :attr:`mark` for a picture; whether the model's answer begins at its end."""
    tiles: Callable[[Image], FloatArray]
    """A picture as pixels, float32 [tiles, 3, height, width]."""
    tokens: int
    """Visual tokens of a tile."""
    mark: str
    """What stands for a picture in the text."""
    written_from: str
    """Whose code this follows, for the report."""
    visual: Callable[[int], str] | None = None
    """What takes the place of a picture's mark, by its number of visual tokens. None: the text is cut at the marks, its
    pieces are tokenised one by one, and :attr:`image_token_id` stands between them."""
    image_token_id: int | None = None
    reserved: tuple[str, ...] = ()
    """Further tokens that the publisher's code replaces."""
    with_sizes: bool = False
    """Whether the model wants ``image_sizes`` too, int64 [pictures, 2], height and width."""

    @property
    def described(self) -> Mapping[str, Any]:
        """For the report of a verification."""
        return {"class": None, "written_from": self.written_from, "tokenizer": {"class": type(self.tokenizer).__name__}}

    @property
    def places(self) -> Sequence[str]:
        """What stands for a picture, and what else is replaced."""
        return (self.mark, *self.reserved)

    def inputs(self, messages: Sequence[Message], pictures: Sequence[Image], *, generate: bool = True) -> Any:
        """input_ids, attention_mask, and pixel_values [tiles of all pictures, 3, height, width]."""
        pixels = [self.tiles(picture) for picture in pictures]
        pieces = self.write(messages, generate).split(self.mark)
        counts = [len(tiles) * self.tokens for tiles in pixels]
        if len(pieces) - 1 != len(counts):
            raise ValueError(f"{len(pieces) - 1} places for {len(counts)} pictures")
        ids = self._cut(pieces, counts) if self.visual is None else self._whole(pieces, counts)
        data: dict[str, Any] = {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}
        if pixels:
            data["pixel_values"] = np.concatenate(pixels)
        if pixels and self.with_sizes:
            data["image_sizes"] = np.array([(picture.height, picture.width) for picture in pictures], np.int64)
        return BatchFeature(data, tensor_type="pt")

    def _whole(self, pieces: Sequence[str], counts: Sequence[int]) -> list[int]:
        assert self.visual is not None  # noqa: S101  (looked at before)
        text = pieces[0] + "".join(self.visual(count) + piece for count, piece in zip(counts, pieces[1:], strict=True))
        begin = self.tokenizer.bos_token
        ids: list[int] = self.tokenizer(text, add_special_tokens=not (begin and text.startswith(begin)))["input_ids"]
        return ids

    def _cut(self, pieces: Sequence[str], counts: Sequence[int]) -> list[int]:
        """``tokenizer_image_token`` of LLaVA's first code: begin tokens behind the first piece are left out."""
        begin = len(self.tokenizer("")["input_ids"])
        ids: list[int] = list(self.tokenizer(pieces[0])["input_ids"])
        for count, piece in zip(counts, pieces[1:], strict=True):
            ids += [self.image_token_id] * count  # type: ignore[list-item]  # given with visual=None
            ids += self.tokenizer(piece)["input_ids"][begin:]
        return ids


def template_writer(tokenizer: Any, template: str) -> Callable[[Sequence[Message], bool], str]:
    """The conversation by a chat template, as transformers renders it."""

    def write(messages: Sequence[Message], generate: bool) -> str:
        text: str = tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=generate
        )
        return text

    return write
