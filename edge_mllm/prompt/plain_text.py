"""What people and models say stays text, also where it spells a mark that stands for a picture.

A template writes its mark for a picture between texts, and a tokenizer makes the image token of it wherever it stands.
So such marks are hidden in messages while the template runs, and where the tokenizer would read one in a text, the
pictures' own image tokens get another name for it, which nobody can write.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from edge_mllm.errors import PromptError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SECRET = "\ufdd0" + "".join(secrets.choice("0123456789") for _ in range(20))
"""No text has it: a code point that is no character, and a number made for this process. It has no case to change."""
_END = "\ufdd1"
IMAGE_TOKEN = f"{_SECRET}{_END}"
"""Name of the image token in :func:`renamed`."""


class Marks:
    """Texts that stand for a picture, hidden in messages while a template runs.

    Args:
        texts: The longer ones may contain the shorter ones.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        ordered = sorted(dict.fromkeys(texts), key=len, reverse=True)
        self._hidden = {text: f"{_SECRET}{number}{_END}" for number, text in enumerate(ordered)}

    def hide(self, value: Any) -> Any:
        """A copy of a message in which no text contains a mark."""
        if isinstance(value, str):
            for text, hidden in self._hidden.items():
                value = value.replace(text, hidden)
            return value
        if isinstance(value, Mapping):
            return {key: self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def show(self, text: str) -> str:
        """A text as it was said."""
        for shown, hidden in self._hidden.items():
            text = text.replace(hidden, shown)
        return text

    def pieces(self, text: str) -> list[tuple[str, bool]]:
        """A text in pieces as they were said, each with whether it is a mark."""
        found = [(text, False)]
        for shown, hidden in self._hidden.items():
            found = [part for piece, mark in found for part in _between(piece, hidden, shown, mark)]
        return [(piece, mark) for piece, mark in found if piece]


def _between(piece: str, hidden: str, shown: str, mark: bool) -> list[tuple[str, bool]]:
    """A piece cut at every hidden mark, which stands between what is left of it."""
    if mark:
        return [(piece, True)]
    first, *rest = piece.split(hidden)
    return [(first, False), *(each for part in rest for each in ((shown, True), (part, False)))]


_renamed: WeakKeyDictionary[Tokenizer, Tokenizer] = WeakKeyDictionary()


def renamed(tokenizer: Tokenizer, token: str) -> Tokenizer:
    """A tokenizer whose image token is written :data:`IMAGE_TOKEN`, so that ``token`` in a text is only text.

    Args:
        tokenizer: A bundle's; what is made of it is kept as long as it lives.
        token: The image token.

    Raises:
        PromptError: This tokenizer makes its image token of other tokens, so it cannot be had as text.
    """
    if tokenizer not in _renamed:
        _renamed[tokenizer] = _rename(tokenizer, token)
    return _renamed[tokenizer]


def _rename(tokenizer: Tokenizer, token: str) -> Tokenizer:
    from tokenizers import Tokenizer

    document = json.loads(tokenizer.to_str())
    _set_names(document, {token: IMAGE_TOKEN})
    try:
        made = Tokenizer.from_str(json.dumps(document))
    except Exception as error:  # tokenizers raises bare Exception
        raise PromptError(f"the text contains '{token}', which this model's tokenizer cannot read as text") from error
    if made.token_to_id(IMAGE_TOKEN) != tokenizer.token_to_id(token):
        raise PromptError(f"the text contains '{token}', which this model's tokenizer cannot read as text")
    return made


def unspeakable(tokenizer: Path, ids: Collection[int]) -> str:
    """A tokenizer.json as text in which no text is one of these tokens, nor a special one.

    Raises:
        PromptError: The file cannot be read.
    """
    try:
        document = json.loads(tokenizer.read_text("utf-8"))
        added = [entry for entry in document["added_tokens"] if entry["special"] or entry["id"] in ids]
        _set_names(document, {entry["content"]: f"{_SECRET}t{entry['id']}{_END}" for entry in added})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PromptError(f"the tokenizer '{tokenizer}' cannot be read ({type(error).__name__})") from error
    return json.dumps(document)


def _set_names(document: dict[str, Any], names: Mapping[str, str]) -> None:
    """Give added tokens other names, in the vocabulary too where they are there."""
    for entry in document["added_tokens"]:
        if entry["content"] in names:
            entry |= {"content": names[entry["content"]], "normalized": False, "special": True}
    vocabulary = document["model"].get("vocab")
    if isinstance(vocabulary, dict):
        for token in names.keys() & vocabulary.keys():
            vocabulary[names[token]] = vocabulary.pop(token)
    elif isinstance(vocabulary, list):
        for entry in vocabulary:
            entry[0] = names.get(entry[0], entry[0])
