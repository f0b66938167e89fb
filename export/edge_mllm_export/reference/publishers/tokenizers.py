"""The tokenizer of a directory that needs code of its own, without running it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edge_mllm_export.reference.tokenizer_choice import choose_tokenizer
from edge_mllm_export.tokenizer.sentencepiece import read_sentencepiece

_PIECES = "tokenizer.model"


def original_tokenizer(origin: Path) -> Any:
    """The directory's own, or SentencePiece's library where its class is code of its own around that."""
    made = any((origin / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    if made or not (origin / _PIECES).is_file():
        return choose_tokenizer(origin).tokenizer
    return SentencePieceTokenizer(origin)


class SentencePieceTokenizer:
    """What InternLM2's class does: cut at the added tokens, then SentencePiece, and a begin token before everything."""

    def __init__(self, origin: Path) -> None:
        settings = json.loads((origin / "tokenizer_config.json").read_text(encoding="utf-8"))
        added = {entry["content"]: int(number) for number, entry in settings.get("added_tokens_decoder", {}).items()}
        self._pieces, self._added = _library(origin / _PIECES), added
        longest_first = sorted(map(re.escape, added), key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(longest_first)})") if added else None
        self.bos_token = _content(settings.get("bos_token"))
        self._begin = self._mark(self.bos_token) if settings.get("add_bos_token", True) else []
        self._end = self._mark(_content(settings.get("eos_token"))) if settings.get("add_eos_token", False) else []

    def _mark(self, text: str | None) -> list[int]:
        return [] if text is None else [self._added.get(text, self._pieces.piece_to_id(text))]

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """As transformers has it."""
        from tokenizers import AddedToken

        return {number: AddedToken(content) for content, number in self._added.items()}

    def convert_tokens_to_ids(self, token: str) -> int:
        """The id of a token."""
        return self._mark(token)[0]

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """input_ids."""
        parts = self._cut.split(text) if self._cut else [text]
        ids: list[int] = []
        for part in filter(None, parts):
            ids += [self._added[part]] if part in self._added else self._pieces.encode(part)
        return {"input_ids": [*self._begin, *ids, *self._end] if add_special_tokens else ids}


def _content(token: Any) -> str | None:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _library(path: Path) -> Any:
    """SentencePiece's library, which refuses InternLM2's piece of one zero byte: no text has it, so it is renamed."""
    from sentencepiece import SentencePieceProcessor

    model = read_sentencepiece(path)
    for piece in model.pieces:
        piece.piece = piece.piece.replace("\0", "\ue000")
    return SentencePieceProcessor(model_proto=model.SerializeToString())
