"""Token ids to text while they arrive: never half a character, never part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge_mllm.errors import SettingError

_REPLACEMENT = "\ufffd"
_LONGEST_CHARACTER = 4
"""Bytes of the longest UTF-8 character, and so the most tokens that one character can be spread over."""


class TokenDecoder(Protocol):
    """What turns token ids into text; ``tokenizers.Tokenizer`` is one."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of tokens, without special ones; bytes that are no whole character read as U+FFFD."""
        ...


class TextStream:
    """Incremental detokenisation.

    Decoding token by token is wrong twice: a byte-level token may hold part of a character, and some tokenizers write
    a token differently at the start of a text. So a window of tokens is decoded again with each new one, and only
    what was added is given out, once it ends with a whole character (the two-offset method known from text-generation
    servers).
    """

    def __init__(self, tokenizer: TokenDecoder) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._given = 0
        """Tokens of the window whose text has been given out."""

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain, often "" inside a character."""
        self._window.append(token)
        before, after = self._decode(self._window[: self._given]), self._decode(self._window)
        pending = len(self._window) - self._given
        if after.endswith(_REPLACEMENT) and pending < 2 * _LONGEST_CHARACTER:
            return ""  # perhaps the first bytes of a character
        if len(after) <= len(before):
            return ""  # a special token, or bytes that join the text before
        self._window = self._window[self._given :]
        self._given = len(self._window)
        return after[len(before) :]

    def flush(self) -> str:
        """Return what was held back; bytes that never became a character read as U+FFFD."""
        before, after = self._decode(self._window[: self._given]), self._decode(self._window)
        self._window, self._given = [], 0
        return after[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True) if ids else ""


class StopStrings:
    """Cuts a stream of text before the first stop string, also where one arrives in pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        if any(not stop for stop in stops):
            raise SettingError("a stop string is empty; leave it out")
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Add text; return what can be shown, and whether a stop string was met (nothing may follow then)."""
        if not self._stops:
            return text, False
        text = self._held + text
        found = [position for stop in self._stops if (position := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = max(self._overlap(text, stop) for stop in self._stops)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut], False

    def flush(self) -> str:
        """Return what was held back because it might have begun a stop string."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of ``text`` that begins ``stop``."""
        for length in range(min(len(stop) - 1, len(text)), 0, -1):
            if text.endswith(stop[:length]):
                return length
        return 0
