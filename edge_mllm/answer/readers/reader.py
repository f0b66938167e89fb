"""How pictures and messages become a prompt: what the layouts of published models differ in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.decoding.json_grammar import JsonGrammars
from edge_mllm.answer.decoding.sampling import LogitsProcessor
from edge_mllm.answer.pictures.bundle_picture import PicturePart, plan_pictures, prepare_pictures
from edge_mllm.answer.pictures.picture import ConversationPicture, PictureCheck
from edge_mllm.answer.timings import Stopwatch
from edge_mllm.arrays import IntArray
from edge_mllm.bundle.files import DECODER_PARTS, OpenBundle
from edge_mllm.bundle.spec import Engine
from edge_mllm.picture.image import Picture
from edge_mllm.prompt.build import PromptIds, build_prompt
from edge_mllm.prompt.stream_text import TokenDecoder
from edge_mllm.prompt.template import ChatTemplate, Message
from edge_mllm.prompt.token_bytes import token_bytes


class Reader(Protocol):
    """Reads pictures and messages for one model; the rest of a session does not know where its files came from."""

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    @property
    def stop_token_ids(self) -> Sequence[int]:
        """Tokens that end the model's turn."""
        ...

    @property
    def tokenizer(self) -> TokenDecoder:
        """Turns the answer's tokens into text."""
        ...

    def pictures(
        self,
        pictures: Sequence[Picture],
        budget: ImageBudget,
        broken: PictureCheck | None = None,
        *,
        decode: bool = True,
    ) -> Sequence[ConversationPicture]:
        """Decode pictures and plan their visual tokens, coarser where a limit is ``broken``; nothing is encoded yet.

        Without ``decode`` they are only planned, where headers are enough for that, and cannot be encoded.

        Raises:
            ImageError: A picture cannot be used.
            PromptError: The budget cannot be kept, or a limit is broken however coarsely pictures are tiled.
            SettingError: Its reduction cannot be done with this model.
        """
        ...

    def text_ids(self, text: str) -> IntArray:
        """Token ids int64 [n] of a text by itself."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """Bytes of one token inside a text; none where it is no text."""
        ...

    def prompt(self, messages: Sequence[Message], pictures: Sequence[ConversationPicture]) -> PromptIds:
        """Token ids of messages, with places for what :meth:`pictures` gave.

        Raises:
            PromptError: The model's template refuses the messages.
        """
        ...

    def grammar(self, schema: str, watch: Stopwatch) -> LogitsProcessor:
        """A mask that holds one answer to a JSON schema.

        Raises:
            SchemaError: The answer cannot be held to it.
        """
        ...

    def weight_bytes(self, *, pictures: bool) -> int:
        """Bytes on disk of the decoder, and of the tower where there are ``pictures``."""
        ...


class BundleReader:
    """Reads as bundle.json says; see :class:`Reader`."""

    def __init__(self, bundle: OpenBundle, engine: Engine) -> None:
        self.spec, self._engine = bundle.spec, engine
        self.name, self.stop_token_ids = bundle.spec.name, bundle.spec.prompt.stop_token_ids
        self.tokenizer = bundle.tokenizer()
        self._template = ChatTemplate(bundle.chat_template())
        prompt, n_vocab = self.spec.prompt, self.spec.decoder.n_vocab
        self._grammars = JsonGrammars(bundle.file("tokenizer"), n_vocab, prompt.stop_token_ids, prompt.image_token_id)

    def pictures(
        self,
        pictures: Sequence[Picture],
        budget: ImageBudget,
        broken: PictureCheck | None = None,
        *,
        decode: bool = True,
    ) -> list[PicturePart]:
        """Decode pictures and choose their tiling; which tiles are left out is only known of decoded ones."""
        if not decode and not (budget.reduction is not None and budget.reduction.on_pixels):
            return plan_pictures(pictures, self.spec, budget, broken)
        return prepare_pictures(pictures, self.spec, budget, broken)

    def text_ids(self, text: str) -> IntArray:
        """Token ids int64 [n] of a text by itself."""
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def token_bytes(self, token: int) -> bytes:
        """Bytes of one token, see :func:`edge_mllm.prompt.token_bytes.token_bytes`."""
        return token_bytes(self.tokenizer, token)

    def prompt(self, messages: Sequence[Message], pictures: Sequence[ConversationPicture]) -> PromptIds:
        """Render and tokenise messages."""
        plans = [picture.plan for picture in pictures if isinstance(picture, PicturePart)]
        return build_prompt(messages, plans, self.spec, self.tokenizer, self._template)

    def grammar(self, schema: str, watch: Stopwatch) -> LogitsProcessor:
        """A mask made by llguidance from the bundle's tokenizer."""
        return self._grammars.mask(schema, watch)

    def weight_bytes(self, *, pictures: bool) -> int:
        """Bytes of the parts that the engine needs."""
        parts = (*DECODER_PARTS[self._engine], *(("vision", "vision_data") if pictures else ()))
        return sum(self.spec.parts[name].bytes for name in parts if name in self.spec.parts)
