"""The vocabulary inside a GGUF file, through llama.cpp: text to tokens and back."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from edge_mllm.arrays import IntArray
from edge_mllm.errors import EngineError, PromptError
from edge_mllm.machine.llama import library
from edge_mllm.machine.native import NativeHandle

_PIECE = 512
_NO_TOKEN = -1


class LlamaVocabulary:
    """Tokens of one model, which it keeps in memory. See :class:`edge_mllm.prompt.stream_text.TokenDecoder`.

    Args:
        model: It, in llama.cpp.
        strips_first_space: The tokenizer writes a space before every text; it is not part of an answer.
    """

    def __init__(self, model: NativeHandle, *, strips_first_space: bool) -> None:
        self._api, self._model = library().api, model
        self._strips = strips_first_space
        self.size = int(self._api.llama_vocab_n_tokens(self._vocab))

    @property
    def _vocab(self) -> Any:
        return self._api.llama_model_get_vocab(self._model.address)

    @property
    def begin(self) -> int | None:
        """The token that goes before every text, where the file asks for one."""
        if not self._api.llama_vocab_get_add_bos(self._vocab):
            return None
        token = int(self._api.llama_vocab_bos(self._vocab))
        return None if token == _NO_TOKEN else token

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end the model's turn."""
        return tuple(token for token in range(self.size) if self._api.llama_vocab_is_eog(self._vocab, token))

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """bos_token and eos_token as text, for the chat template."""
        found = {}
        for name in ("bos", "eos"):
            token = int(getattr(self._api, f"llama_vocab_{name}")(self._vocab))
            if token != _NO_TOKEN:
                found[f"{name}_token"] = self.piece(token, special=True).decode("utf-8", "replace")
        return found

    def encode(self, text: str, *, special: bool = True) -> IntArray:
        """Token ids int64 [n]; nothing is added.

        Args:
            text: Any.
            special: Whether special tokens written in the text are read as such, and not as text.

        Raises:
            PromptError: The text is not Unicode.
        """
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError("the text has characters that are not Unicode (a lone surrogate)") from error
        room = len(data) + 16
        ids = (ctypes.c_int32 * room)()
        count = self._api.llama_tokenize(self._vocab, data, len(data), ids, room, False, special)
        if count < 0:
            raise EngineError("llama.cpp cannot tokenise the prompt")
        return np.array(ids[:count], np.int64)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of tokens; bytes that are no whole character read as U+FFFD."""
        data = b"".join(self.piece(token, special=not skip_special_tokens) for token in ids)
        if self._strips:
            data = data.removeprefix(b" ")
        return data.decode("utf-8", "replace")

    def usual(self, token: int) -> int:
        """The token that a text becomes which is that of ``token``; ``token`` where it becomes several.

        Vocabularies of SentencePiece's kind have bytes as tokens too: a line's end may be in them twice.
        """
        try:
            found = self.encode(self.piece(token, special=True).decode("utf-8"))
        except UnicodeDecodeError:
            return token
        return int(found[0]) if len(found) == 1 else token

    def piece(self, token: int, *, special: bool) -> bytes:
        """Bytes of one token; none for a special one unless ``special``."""
        buffer = ctypes.create_string_buffer(_PIECE)
        count = int(self._api.llama_token_to_piece(self._vocab, token, buffer, _PIECE, 0, special))
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = int(self._api.llama_token_to_piece(self._vocab, token, buffer, -count, 0, special))
        return buffer.raw[:count]
