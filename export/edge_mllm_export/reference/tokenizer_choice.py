"""Which of two tokenizers a directory's prompts are compared with, and how far they depart from each other.

A user of transformers gets the class that the files name. What the model was trained with is tokenizer.json, see
:mod:`edge_mllm_export.tokenizer.directory`. Where both give the same ids, the class is the reference; where they do
not, tokenizer.json is, and the report says so with the texts.

Trainers leave the length at which they cut their texts in tokenizer.json, and transformers' processors cut prompts
there too, through the middle of pictures. Nothing is cut on a device, and not in the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.reference.texts import PLAIN, marker_texts
from edge_mllm_export.tokenizer.directory import FILE, class_tokenizer, file_tokenizer

_SHOWN = 5


@dataclass(frozen=True)
class TokenizerChoice:
    """A directory's tokenizer in transformers."""

    tokenizer: Any
    described: dict[str, Any]
    """``taken``: "class" or tokenizer.json; ``class``; ``texts``: how many were compared; ``differing``: of those,
    with the first of them and both ids; ``why`` where the class could not be loaded; ``cuts_at`` where the file cuts
    longer texts."""


def choose_tokenizer(directory: Path) -> TokenizerChoice:
    """Load both tokenizers of a directory and compare them.

    Raises:
        CheckpointError: Neither can be loaded.
    """
    if not (directory / FILE).is_file():
        only = class_tokenizer(directory)
        return TokenizerChoice(only, {"taken": "class", "class": type(only).__name__, "texts": 0, "differing": 0})
    file = file_tokenizer(directory)
    cut = _uncut(file)
    try:
        named = class_tokenizer(directory)
    except CheckpointError as error:
        why = {"why": error.reason, "texts": 0, "differing": 0}
        return TokenizerChoice(file, {"taken": FILE, "class": None} | why | cut)
    _uncut(named)
    texts = [*PLAIN, *marker_texts(declared_tokens(file))]
    found = [(text, _ids(named, text), _ids(file, text)) for text in texts]
    differing = [{"text": text, "class": theirs, FILE: ours} for text, theirs, ours in found if theirs != ours]
    described: dict[str, Any] = {
        "taken": FILE if differing else "class",
        "class": type(named).__name__,
        "texts": len(texts),
        "differing": len(differing),
    } | cut
    if not differing:
        return TokenizerChoice(named, described)
    return TokenizerChoice(file, described | {"first": differing[:_SHOWN]})


def _uncut(tokenizer: Any) -> dict[str, int]:
    """Make a tokenizer leave texts whole; where it would have cut them, for the report."""
    settings = tokenizer.init_kwargs
    found = settings.pop("max_length", None)
    for name in ("truncation_strategy", "stride"):
        settings.pop(name, None)
    return {} if found is None else {"cuts_at": int(found)}


def declared_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Every token that a tokenizer has beside its vocabulary, by id."""
    added = tokenizer.added_tokens_decoder
    return tuple(added[number].content for number in sorted(added))


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids
