"""How pictures and messages become a prompt: what the layouts of published models differ in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edge_mllm.budget import ImageBudget
from edge_mllm.bundle import Engine
from edge_mllm.bundle_files import DECODER_PARTS, OpenBundle
from edge_mllm.chat_template import ChatTemplate, Message
from edge_mllm.conversation_picture import ConversationPicture, PictureCheck
from edge_mllm.decoders.protocol import IntArray
from edge_mllm.image import Picture
from edge_mllm.json_grammar import JsonGrammars
from edge_mllm.pictures import PicturePart, prepare_pictures
from edge_mllm.prompt import PromptIds, build_prompt
from edge_mllm.sampling import LogitsProcessor
from edge_mllm.stream_text import TokenDecoder
from edge_mllm.timings import Stopwatch


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
        self, pictures: Sequence[Picture], budget: ImageBudget, broken: PictureCheck | None = None
    ) -> Sequence[ConversationPicture]:
        """Decode pictures and plan their visual tokens, coarser where a limit is ``broken``; nothing is encoded yet.

        Raises:
            ImageError: A picture cannot be used.
            PromptError: The budget cannot be kept.
            SettingError: Its reduction cannot be done with this model.
        """
        ...

    def text_ids(self, text: str) -> IntArray:
        """Token ids int64 [n] of a text by itself."""
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
        self.tokenizer = bundle.tokenizer()
        self._template = ChatTemplate(bundle.chat_template())
        stops = self.spec.prompt.stop_token_ids
        self._grammars = JsonGrammars(bundle.file("tokenizer"), self.spec.decoder.n_vocab, stops)

    @property
    def name(self) -> str:
        """As bundle.json says."""
        return self.spec.name

    @property
    def stop_token_ids(self) -> Sequence[int]:
        """As bundle.json says."""
        return self.spec.prompt.stop_token_ids

    def pictures(
        self, pictures: Sequence[Picture], budget: ImageBudget, broken: PictureCheck | None = None
    ) -> list[PicturePart]:
        """Decode pictures and choose their tiling."""
        return prepare_pictures(pictures, self.spec, budget, broken)

    def text_ids(self, text: str) -> IntArray:
        """Token ids int64 [n] of a text by itself."""
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

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
