"""llama.cpp's tokenizer, from the vocabulary of a GGUF file."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType

from edge_mllm.machine.llama import library


class LlamaVocab:
    """The vocabulary of a file; a context manager."""

    def __init__(self, path: Path) -> None:
        self._api = library().api
        parameters = self._api.llama_model_default_params()
        parameters.vocab_only = True
        self._model = self._api.llama_model_load_from_file(str(path).encode(), parameters)
        assert self._model, f"llama.cpp cannot read the vocabulary of {path}"
        self._vocab = self._api.llama_model_get_vocab(self._model)

    def __enter__(self) -> LlamaVocab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._api.llama_model_free(self._model)

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Token ids of a text; with ``parse_special``, markers in it are read as such, as tokenizer.json does."""
        data = text.encode()
        room = len(data) + 8
        ids = (ctypes.c_int32 * room)()
        count = self._api.llama_tokenize(self._vocab, data, len(data), ids, room, add_special, parse_special)
        assert count >= 0
        return list(ids[:count])

    def piece(self, token: int, *, special: bool = True) -> bytes:
        """The bytes a token stands for."""
        buffer = ctypes.create_string_buffer(512)
        count = self._api.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        assert count >= 0
        return buffer.raw[:count]

    @property
    def special(self) -> dict[str, int]:
        """bos, eos, eot and pad."""
        names = ("bos", "eos", "eot", "pad")
        return {name: getattr(self._api, f"llama_vocab_{name}")(self._vocab) for name in names}

    def ends(self, token: int) -> bool:
        """Whether llama.cpp takes the token for an end of generation."""
        return bool(self._api.llama_vocab_is_eog(self._vocab, token))
