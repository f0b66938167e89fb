"""A conversation: every turn sees the turns before it, and computes only what is new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.answer import Answer, Piece
from edge_mllm.cells import Key
from edge_mllm.chat_file import ChatFile, read_chat_file, write_chat_file
from edge_mllm.chat_state import ChatState, pack_chat, unpack_chat
from edge_mllm.conversation_picture import ConversationPicture, seen_together
from edge_mllm.decoders.protocol import DecoderState
from edge_mllm.errors import ChatFileError, EdgeMLLMError
from edge_mllm.image import Picture
from edge_mllm.pipeline import Conversation
from edge_mllm.request import Request, assistant_message, user_message

if TYPE_CHECKING:
    from edge_mllm.session import Model


class Chat:
    """Turns of a user and a model. Made by :meth:`edge_mllm.session.Model.chat`."""

    def __init__(self, model: Model, *, system: str | None = None) -> None:
        self._model = model
        self._messages: list[dict[str, Any]] = []
        self._pictures: list[ConversationPicture] = []
        if system is not None:
            self._messages.append({"role": "system", "content": [{"type": "text", "text": system}]})

    @property
    def messages(self) -> tuple[dict[str, Any], ...]:
        """The conversation so far."""
        return tuple(self._messages)

    def ask(self, prompt: str, images: Sequence[Picture] = (), *, request: Request | None = None) -> Answer:
        """Say something and get the whole answer; arguments and errors as :meth:`stream`."""
        from edge_mllm.answer import last_answer

        return last_answer(self.stream(prompt, images, request=request))

    def stream(self, prompt: str, images: Sequence[Picture] = (), *, request: Request | None = None) -> Iterator[Piece]:
        """Say something and get the answer piece by piece.

        A turn that is broken off (by an interruption or by not asking for more pieces) stays in the conversation with
        the text it had; one that never produced text is forgotten.

        Args:
            prompt: What the user says.
            images: Pictures that belong to this turn.
            request: How to answer; its image budget applies to this turn's pictures.

        Raises:
            ImageError: A picture cannot be used.
            PromptError: An earlier picture would have to be tiled anew, but was saved without its pixels.
            ContextOverflowError: The conversation does not fit any more.
            LimitError: The answer would break one of the request's limits.
        """
        request = request or Request()
        watch = self._model.start_watch()
        messages = [*self._messages, user_message(prompt, len(images))]
        pipeline, earlier = self._model.pipeline, Conversation(messages, self._pictures)
        new = pipeline.pictures(images, earlier, request, watch, keep_any=True)
        pictures = seen_together([*self._pictures, *new])
        pieces = pipeline.respond(Conversation(messages, pictures), request, watch, keep_any=True)
        return self._remember(pieces, messages, pictures)

    def save(self, path: str | Path) -> None:
        """Write the conversation and its part of the cache to a file, see :meth:`edge_mllm.session.Model.load_chat`.

        The file holds what was said and the pictures' embeddings or pixels. It appears whole or not at all.

        Raises:
            OSError: The disk is full or the place cannot be written.
        """
        binding = self._model.binding()
        keys: Sequence[Key] = ()
        state = DecoderState(np.zeros(0, np.int64), ())
        if any(message["role"] == "assistant" for message in self._messages):
            keys, state = self._model.pipeline.saved(Conversation(self._messages, self._pictures))
        head, arrays = pack_chat(ChatState(self._messages, self._pictures, keys, state))
        write_chat_file(Path(path), ChatFile(binding, head, arrays))

    @staticmethod
    def load(model: Model, path: str | Path) -> Chat:
        """As :meth:`edge_mllm.session.Model.load_chat`."""
        path, chat = Path(path), Chat(model)
        file = read_chat_file(path, model.binding())
        try:
            saved = unpack_chat(file, model.spec)
            model.pipeline.adopt(saved.keys, saved.state)
        except (ValueError, KeyError, TypeError, IndexError, EdgeMLLMError) as error:
            raise ChatFileError(path, f"it cannot be restored ({error})") from error
        chat._messages, chat._pictures = [dict(each) for each in saved.messages], list(saved.pictures)
        return chat

    def _remember(
        self, pieces: Iterator[Piece], messages: list[dict[str, Any]], pictures: list[ConversationPicture]
    ) -> Iterator[Piece]:
        texts: list[str] = []
        try:
            for piece in pieces:
                texts.append(piece.text)
                yield piece
        finally:
            if texts:
                self._messages = [*messages, assistant_message("".join(texts))]
                self._pictures = pictures
