"""A row: one question with its pictures, from a line of JSON or a record of a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_mllm.errors import RowError
from edge_mllm.measure.eval.pictures import FilePicture, InlinePicture, Picture


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question, checked for its form. What it does not say comes from the command line."""

    number: int
    """Counted from 1."""
    name: str = ""
    """Its ``id``; empty where it has none."""
    prompt: str | None = None
    system: str | None = None
    options: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    labels: tuple[str, ...] = ()
    """What the row calls its pictures; the same wherever the batch is started."""
    problem: str = ""
    """Why it cannot be asked."""

    @property
    def key(self) -> str:
        """Equal for two rows exactly when they ask the same of pictures that are called the same."""
        asked = [self.prompt, self.system, self.options, self.labels]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What rows get that do not say it themselves."""

    prompt: str | None = None
    system: str | None = None
    options: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def fill(self, row: Row) -> Row:
        """The row with what it does not say; a problem where it then has no prompt."""
        prompt = self.prompt if row.prompt is None else row.prompt
        return replace(
            row,
            prompt=prompt,
            system=self.system if row.system is None else row.system,
            options=row.options or self.options,
            pictures=row.pictures or self.pictures,
            problem=row.problem or ("" if prompt is not None else "has no prompt"),
        )


def read_lines(lines: Iterable[bytes], root: Path) -> Iterator[Row]:
    """Rows of JSON Lines; blank lines are passed over, and a line that is no row says why.

    Args:
        lines: As a file gives them.
        root: Where relative paths of pictures begin.
    """
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        try:
            values = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            yield Row(number=number, problem=f"is not JSON ({error})")
            continue
        yield row_of(number, values, root)


def row_of(number: int, values: Any, root: Path, held: Sequence[tuple[str, Picture]] = ()) -> Row:
    """A row from its fields: ``id``, ``prompt``, ``system``, ``options``, ``image`` or ``images``.

    Args:
        number: Counted from 1.
        values: A JSON object; other fields are passed over.
        root: Where relative paths of pictures begin.
        held: Labels and pictures beside the fields, where the fields name none.
    """
    if not isinstance(values, Mapping):
        return Row(number=number, problem=f"is a {type(values).__name__}, not an object")
    name = ""
    try:
        name = _name(values.get("id"))
        pictures = [_picture(entry, root) for entry in _entries(values, "image", "images")] or held
        return Row(
            number=number,
            name=name,
            prompt=_text(values, "prompt"),
            system=_text(values, "system"),
            options=_options(values),
            pictures=tuple(picture for _, picture in pictures),
            labels=tuple(label for label, _ in pictures),
        )
    except RowError as error:
        return Row(number=number, name=name, problem=str(error))


def _name(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"has an id of type {type(value).__name__}; it must be text or a whole number")
    return str(value)


def _text(values: Mapping[str, Any], field: str) -> str | None:
    value = values.get(field)
    if value is not None and not isinstance(value, str):
        raise RowError(f"has a {field} of type {type(value).__name__}; it must be text")
    return value


def _options(values: Mapping[str, Any]) -> tuple[str, ...]:
    found = _entries(values, "options")
    if any(not isinstance(option, str) for option in found):
        raise RowError("has options that are no texts")
    return tuple(found)


def _entries(values: Mapping[str, Any], *fields: str) -> list[Any]:
    """What stands in the first field that is there: a list, or one value."""
    value: Any = next((values[field] for field in fields if values.get(field) is not None), [])
    return list(value) if isinstance(value, list | tuple) else [value]


def _picture(entry: Any, root: Path) -> tuple[str, Picture]:
    """Label and picture."""
    if isinstance(entry, str) and entry.startswith("data:"):
        return label_of(entry.encode()), InlinePicture(entry)
    if isinstance(entry, str) and entry:
        return entry, FilePicture(root / entry)
    raise RowError(f"has a picture of type {type(entry).__name__}; it must be a path or a data: URL")


def label_of(data: bytes) -> str:
    """What a picture without a name is called."""
    return f"sha256:{hashlib.sha256(data).hexdigest()[:16]}"
