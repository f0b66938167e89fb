"""Which of a directory's files holds the chat template that a user of transformers gets.

The order is that of ``ProcessorMixin.get_processor_dict`` and ``PreTrainedTokenizerBase._from_pretrained`` in
transformers 5: ``chat_template`` in processor_config.json; else chat_template.json; else chat_template.jinja with the
named templates beside it in additional_chat_templates; else ``chat_template`` in tokenizer_config.json. Of several
named templates the one called "default" is taken. Files that were passed over and say something else are named, because
other programs may take them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mllm.typed_json import parse_json

JINJA, JSON, NAMED = "chat_template.jinja", "chat_template.json", "additional_chat_templates"
_FIELD = "chat_template"
_MOST_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class FoundTemplate:
    """A chat template and where it comes from."""

    text: str
    file: str
    """Name of the file that has it."""
    name: str | None
    """``default`` where the file or its folder has several, each under a name."""
    others: tuple[str, ...]
    """Files that were passed over and hold another template."""

    @property
    def described(self) -> dict[str, Any]:
        """For the report of a verification."""
        named = {} if self.name is None else {"name": self.name}
        return {"file": self.file, **named, "passed_over": list(self.others)}


class TemplateFileError(Exception):
    """A directory has no chat template, or one that nobody can use; the caller makes an error of its own of it."""

    def __init__(self, file: Path, reason: str, field: str = _FIELD) -> None:
        super().__init__(f"{file.name}, {field}: {reason}")
        self.file, self.field, self.reason = file, field, reason


class NoTemplateError(TemplateFileError):
    """A directory has no chat template at all."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / JINJA, "is missing; is this a base model? take its instruct version")


def find_template(directory: Path) -> FoundTemplate:
    """The template that a processor loaded from a directory uses.

    Raises:
        NoTemplateError: There is none.
        TemplateFileError: The file that decides is damaged, contradicts another one, or has several templates without a
            default.
    """
    found = list(_places(directory))
    if not found:
        raise NoTemplateError(directory)
    file, value = found[0]
    text, name = _default(file, value)
    others = tuple(other.name for other, value in found[1:] if _text(value) != text)
    return FoundTemplate(text=text, file=file.name, name=name, others=others)


def _places(directory: Path) -> Iterator[tuple[Path, Any]]:
    """Files that have a template with what is in them, in the order in which they win."""
    settings, tokenizer = directory / "processor_config.json", directory / "tokenizer_config.json"
    value = _read(settings).get(_FIELD)
    if value is not None:
        yield settings, value
    yield from _legacy(directory)
    yield from _texts(directory)
    value = _read(tokenizer).get(_FIELD)
    if isinstance(value, list):  # several named templates, as older tokenizers have them
        value = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
    if value:
        yield tokenizer, value


def _legacy(directory: Path) -> Iterator[tuple[Path, Any]]:
    file = directory / JSON
    if not file.is_file():
        return
    if any((directory / NAMED).glob("*.jinja")):
        raise TemplateFileError(
            file, f"contradicts the folder {NAMED}, which transformers refuses; rename it to {JINJA}"
        )
    document = _read(file)
    if _FIELD not in document:
        raise TemplateFileError(file, "is missing")
    if document[_FIELD] != "":  # transformers takes an empty one for none
        yield file, document[_FIELD]


def _texts(directory: Path) -> Iterator[tuple[Path, Any]]:
    """chat_template.jinja, with the named templates of the folder beside it."""
    files = {path.stem: path for path in sorted((directory / NAMED).glob("*.jinja"))}
    if (directory / JINJA).is_file():
        files = {"default": directory / JINJA, **files}
    texts = {name: _read_text(path) for name, path in files.items()}
    if list(texts) == ["default"]:
        if texts["default"]:
            yield directory / JINJA, texts["default"]
    elif texts:
        yield directory / (JINJA if "default" in texts else NAMED), texts


def _default(file: Path, value: Any) -> tuple[str, str | None]:
    """Text and name of the template that is used where nobody asks for another."""
    if isinstance(value, dict):
        if "default" not in value:
            names = ", ".join(map(str, value)) or "nothing"
            raise TemplateFileError(file, f"has no template called default, which of {names} is meant?")
        return _default(file, value["default"])[0], "default"
    if not isinstance(value, str):
        raise TemplateFileError(file, f"is a {type(value).__name__}, expected a text or named texts")
    if not value:
        raise TemplateFileError(file, "is empty")
    return value, None


def _text(value: Any) -> Any:
    return value.get("default") if isinstance(value, dict) else value


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file."""
    if not file.is_file():
        return {}
    try:
        document = parse_json(_read_text(file))
    except (ValueError, RecursionError) as error:
        raise TemplateFileError(file, f"the file is not JSON ({_line(error)})") from error
    if not isinstance(document, dict):
        raise TemplateFileError(file, "the file is not a JSON object")
    return document


def _read_text(file: Path) -> str:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise TemplateFileError(file, f"the file is larger than {_MOST_BYTES >> 20} MiB")
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise TemplateFileError(file, "the file is not UTF-8") from error
    except OSError as error:
        raise TemplateFileError(file, f"the file cannot be read ({error.strerror})") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
