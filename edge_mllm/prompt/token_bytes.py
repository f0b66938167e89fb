"""The bytes that one token of a tokenizer.json stands for."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_REPLACEMENT = "\ufffd"
_anchors: WeakKeyDictionary[Tokenizer, tuple[list[int], str]] = WeakKeyDictionary()


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """Bytes of a token as it stands inside a text; none for one that is no text.

    Two forms of writing bytes in a vocabulary are known: ``<0xE2>``, and one printable character a byte (byte-level
    BPE, Radford et al. 2019).

    Args:
        tokenizer: A bundle's.
        token: Its id.
    """
    written = tokenizer.id_to_token(token)
    if written is None:
        return b""
    byte = _BYTE.fullmatch(written)
    if byte:
        return bytes([int(byte[1], 16)])
    text = _inside(tokenizer, token)
    if _REPLACEMENT not in text:
        return text.encode("utf-8", "replace")
    table = _byte_level()
    return bytes(table[each] for each in written) if all(each in table for each in written) else text.encode()


def _inside(tokenizer: Tokenizer, token: int) -> str:
    """The token's text after another one: many tokenizers write a token differently where a text begins."""
    if tokenizer not in _anchors:
        before = tokenizer.encode("a", add_special_tokens=False).ids
        _anchors[tokenizer] = (before, _decode(tokenizer, before))
    before, shown = _anchors[tokenizer]
    return _decode(tokenizer, [*before, token]).removeprefix(shown)


def _decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True))


@functools.cache
def _byte_level() -> dict[str, int]:
    """Character -> byte: printable bytes of Latin-1 stand for themselves, the others follow from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
