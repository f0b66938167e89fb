"""A conversation: every turn sees the turns before it, and computes only what is new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from edge_mllm.answer.answer import Answer, Piece, last_answer
from edge_mllm.answer.conversation import Conversation
from edge_mllm.answer.decoding.keys import Key
from edge_mllm.answer.messages import Pictures, assistant_message, listed, question_messages, system_message
from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.answer.pipeline import Pipeline
from edge_mllm.answer.request import GenerateOptions, Request, request_of
from edge_mllm.answer.turns import Turns
from edge_mllm.decoders.protocol import DecoderState
from edge_mllm.errors import BusyError, ChatFileError, EdgeMLLMError
from edge_mllm.session.chat_file import ChatFile, read_chat_file, write_chat_file
from edge_mllm.session.chat_state import ChatState, pack_chat, unpack_chat
from edge_mllm.session.transcript import transcript


class Chat:
    """Turns of a user and a model. Made by :meth:`edge_mllm.session.session.Model.chat`."""

    def __init__(self, pipeline: Pipeline, *, system: str | None = None) -> None:
        self._pipeline = pipeline
        self._turns = Turns(pipeline.turns.when_busy)
        self._messages: list[dict[str, Any]] = []
        self._pictures: list[ConversationPicture] = []
        self.cache_left: str | None = None
        """Of a chat that was loaded: why the cache in its file was not used, so that the first answer computes anew."""
        if system is not None:
            self._messages.append(system_message(system))

    @property
    def messages(self) -> tuple[dict[str, Any], ...]:
        """The conversation so far."""
        return tuple(self._messages)

    @property
    def system(self) -> str | None:
        """The system message; None where there is none."""
        if not self._messages or self._messages[0]["role"] != "system":
            return None
        return "".join(str(part["text"]) for part in self._messages[0]["content"])

    def ask(self, prompt: str, images: Pictures = (), **options: Unpack[GenerateOptions]) -> Answer:
        """Say something and get the whole answer; arguments and errors as :meth:`stream`."""
        request = request_of(**options)
        with self._turns.turn():
            return last_answer(self._asked(prompt, images, request))

    def stream(self, prompt: str, images: Pictures = (), **options: Unpack[GenerateOptions]) -> Iterator[Piece]:
        """Say something and get the answer piece by piece.

        A turn that is broken off (by an interruption or by not asking for more pieces) stays in the conversation with
        the text it had; one that never produced text is forgotten.

        Args:
            prompt: What the user says.
            images: A picture that belongs to this turn, or several.
            options: See :class:`edge_mllm.GenerateOptions`; those of pictures apply to this turn's.

        Raises:
            ImageError: A picture cannot be used.
            PromptError: An earlier picture would have to be tiled anew, but was saved without its pixels.
            ContextOverflowError: The conversation does not fit any more.
            LimitError: The answer would break one of its limits.
            SettingError: An option is outside its range or of another type.
            BusyError: Another turn was added before the first piece was asked for, or this thread has a stream open.
        """
        return self.respond(prompt, images, request_of(**options))

    def respond(self, prompt: str, images: Pictures, request: Request) -> Iterator[Piece]:
        """As :meth:`stream`, with the options as one value."""
        return self._in_turn(self._asked(prompt, images, request), self._messages)

    def _in_turn(self, pieces: Iterator[Piece], before: list[dict[str, Any]]) -> Iterator[Piece]:
        """Pieces of a turn that follows what was said ``before``."""
        with self._turns.turn():
            if self._messages is not before:
                raise BusyError(own=False)
            yield from pieces

    def _asked(self, prompt: str, images: Pictures, request: Request) -> Iterator[Piece]:
        watch, images = self._pipeline.start_watch(), listed(images)
        messages = [*self._messages, *question_messages(prompt, len(images), None)]
        earlier = Conversation(messages, self._pictures)
        conversation, pieces = self._pipeline.ask(images, earlier, request, watch, keep_any=True)
        return self._remember(pieces, messages, list(conversation.pictures))

    def save(self, path: str | Path) -> None:
        """Write the conversation and its part of the cache to a file, see :meth:`edge_mllm.Model.load_chat`.

        The file holds what was said and the pictures' embeddings or pixels. It appears whole or not at all.

        Raises:
            OSError: The disk is full or the place cannot be written.
        """
        binding = self._pipeline.parts.binding()
        keys: Sequence[Key] = ()
        state = DecoderState(np.zeros(0, np.int64), ())
        if any(message["role"] == "assistant" for message in self._messages):
            keys, state = self._pipeline.saved(Conversation(self._messages, self._pictures))
        head, arrays = pack_chat(ChatState(self._messages, self._pictures, keys, state))
        write_chat_file(Path(path), ChatFile(binding, head, arrays, transcript(self._messages)))

    @staticmethod
    def load(pipeline: Pipeline, path: str | Path) -> Chat:
        """As :meth:`edge_mllm.session.session.Model.load_chat`."""
        path, chat, parts = Path(path), Chat(pipeline), pipeline.parts
        file = read_chat_file(path, parts.binding())
        try:
            saved = unpack_chat(file, parts.known_spec)
            if file.difference is None:
                pipeline.adopt(saved.keys, saved.state)
        except (ValueError, KeyError, TypeError, IndexError, EdgeMLLMError) as error:
            raise ChatFileError(path, f"it cannot be restored ({error})") from error
        chat.cache_left = file.difference
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
