"""The tokenizer that a directory's own files give: tokenizer.json, and what the files beside it add to it.

``tokenizer_config.json``, ``special_tokens_map.json`` and ``added_tokens.json`` declare tokens that tokenizer.json may
lack. transformers' generic class (``TokenizersBackend``) loads the file as it is and adds them; what comes out is a
tokenizer.json that needs no other file.

The class that the files name is another matter. Since transformers 5 several classes build normaliser and pre-tokenizer
anew in code and take nothing but vocabulary and merges from the file: a ``GPT2Tokenizer`` loses the split of digits,
a ``Qwen2Tokenizer`` gets a normaliser that the file may not have. Up to transformers 4 they took the file, as the
tokenizers library, transformers.js and text-generation servers still do. So the file is what a model was trained with,
and it is followed; :func:`class_tokenizer` is what a user of transformers gets, and verification compares both.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.json_files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
_PARTS = ("vocab.json", "merges.txt")
"""What tokenizer.json is made of where a directory has none."""


@dataclass(frozen=True)
class DirectoryTokenizer:
    """A tokenizer and the tokens that a chat template may use by name."""

    text: str
    """Content of a tokenizer.json that gives its ids without any other file."""
    backend: Tokenizer
    """The same, opened; text is neither padded nor cut."""
    names: dict[str, str]
    """bos_token, eos_token, ... as transformers hands them to a chat template."""
    declared: tuple[str, ...]
    """Tokens that the files beside tokenizer.json declare and it lacks, or has with other rules."""


def read_directory_tokenizer(directory: Path) -> DirectoryTokenizer:
    """Read the tokenizer of a checkpoint directory.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    file = directory / FILE
    refuse_splitting(directory)
    if not file.is_file() and all((directory / name).is_file() for name in _PARTS):
        made = class_tokenizer(directory)
        backend = _unbounded(made)
        return DirectoryTokenizer(backend.to_str(), backend, _names(made), ())
    if not file.is_file():
        raise CheckpointError(file, "", "is missing; save the tokenizer with a current transformers")
    plain = _open(file)
    found = file_tokenizer(directory)
    backend = _unbounded(found)
    before, after = _added(plain), _added(backend)
    declared = tuple(content for content, rules in after.items() if before.get(content) != rules)
    _check_numbers(directory, {text: backend.token_to_id(text) for text in declared if text not in before})
    text = backend.to_str() if declared else file.read_text(encoding="utf-8")
    with suppress(CheckpointError):  # a class that needs code of its own gives no names
        return DirectoryTokenizer(text, backend, {**_names(class_tokenizer(directory)), **_names(found)}, declared)
    return DirectoryTokenizer(text, backend, _names(found), declared)


def refuse_splitting(directory: Path) -> None:
    """Refuse a tokenizer that reads the marks of turns and pictures as plain text: no model is trained so.

    Raises:
        CheckpointError: Its settings say so, or are damaged.
    """
    if read_settings(directory).get("split_special_tokens"):
        reason = "is true, with which the marks of turns and pictures are read as plain text; set it to false"
        raise CheckpointError(directory / SETTINGS, "split_special_tokens", reason)


def read_settings(directory: Path) -> dict[str, Any]:
    """tokenizer_config.json, empty where there is none.

    Raises:
        CheckpointError: It is no JSON object.
    """
    file = directory / SETTINGS
    return read_json(file) if file.is_file() else {}


def _check_numbers(directory: Path, given: dict[str, int | None]) -> None:
    """A token that tokenizer.json lacks gets the next free id, which must be the one that it was trained with."""
    for number, entry in (read_settings(directory).get("added_tokens_decoder") or {}).items():
        found = given.get(entry["content"])
        if found is not None and found != int(number):
            reason = f"is {entry['content']}, which tokenizer.json lacks, and which would get the id {found}"
            raise CheckpointError(directory / SETTINGS, f"added_tokens_decoder.{number}", reason)


def _unbounded(tokenizer: Any) -> Tokenizer:
    """Its backend, which neither pads nor cuts."""
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return backend


def save_tokenizer(directory: Path, out: Path) -> None:
    """Write a directory's tokenizer as tokenizer.json and tokenizer_config.json into another one.

    Raises:
        CheckpointError: It cannot be read.
    """
    kind = file_tokenizer if (directory / FILE).is_file() else class_tokenizer
    kind(directory).save_pretrained(out)


def file_tokenizer(directory: Path) -> Any:
    """tokenizer.json with the tokens that the files beside it declare, as transformers' generic class.

    Raises:
        CheckpointError: They cannot be read together.
    """
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    return _loaded(TokenizersBackend, directory)


def class_tokenizer(directory: Path) -> Any:
    """The tokenizer as transformers loads it for a user: of the class that the files name, without code from them.

    Raises:
        CheckpointError: transformers cannot load it.
    """
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer, directory)


def _loaded(kind: Any, directory: Path) -> Any:
    try:
        with quiet():
            return kind.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # whatever damaged files make of its code
        reason = f"cannot be read by transformers ({type(error).__name__}: {_line(error)})"
        raise CheckpointError(directory / SETTINGS, "", reason) from error


def _open(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(file, "", f"is no tokenizer ({_line(error)})") from error


def _added(tokenizer: Tokenizer) -> dict[str, tuple[Any, ...]]:
    """Added tokens with their ids and rules."""
    return {
        token.content: (number, token.special, token.lstrip, token.rstrip, token.normalized, token.single_word)
        for number, token in tokenizer.get_added_tokens_decoder().items()
    }


def _names(tokenizer: Any) -> dict[str, str]:
    found = tokenizer.special_tokens_map
    return {name: str(value) for name, value in found.items() if not isinstance(value, list | tuple)}


class quiet:  # noqa: N801  (a context manager reads as a verb)
    """Only errors of transformers while something loads: what it warns of is compared and reported."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._was = logging.get_verbosity()
        logging.set_verbosity_error()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._was)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
