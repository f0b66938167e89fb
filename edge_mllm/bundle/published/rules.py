"""From a published directory's own configuration files to the sections of a bundle.json.

What is read from where is data: ``layouts.json``, which the export side writes from its family files. An entry is a
bundle.json section with references in it:

``{"read": ["config.text_config.hidden_size", ...], "default": 1, "names": {"3": "bicubic"}}`` is the first of the
paths that is there and not null, else the default; ``names`` translates it. ``{"tokens": [tile, patch, merge, extra]}``
is the number of visual tokens of a square tile: ``(tile // patch // merge) ** 2 + extra``. ``{"product": [a, b]}``
multiplies. ``{"in_tiles": points, "tile": tile}`` makes rows and columns of heights and widths. ``{"number": text,
"after": "anyres_max_"}`` is the whole number behind that beginning. ``{"colour": mean}`` is a mean as an 8-bit colour.

An entry with ``refused`` in the place of its sections is a model that published files do not compute as it is.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_mllm.bundle.pointers import is_pointer
from edge_mllm.errors import BundleError, PartPointerError
from edge_mllm.typed_json import FieldError, parse_json, read_typed

FILES = {
    "config": "config.json",
    "processor": "preprocessor_config.json",
    "settings": "processor_config.json",
    "generation": "generation_config.json",
    "tokenizer": "tokenizer_config.json",
}
"""First word of a path -> the file it stands for."""

_TABLE = Path(__file__).with_name("layouts.json")
_MOST_BYTES = 1 << 26
_MISSING = object()


class Configuration:
    """The JSON files of one directory.

    Args:
        directory: Where they lie; only config.json must be there.

    Raises:
        BundleError: A file is no JSON object.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = {name: read_object(directory / file) for name, file in FILES.items()}
        nested = self.files["settings"].get("image_processor")
        if isinstance(nested, dict) and nested:  # where transformers 5 writes it; it wins there too
            self.files["processor"] = nested
        steps = {name: False for name, value in self.files["processor"].items() if value is None and name[:3] == "do_"}
        self.files["processor"] |= steps  # what is null is off, in transformers 5
        if not self.files["config"]:
            raise BundleError(directory, "it has no config.json")

    def find(self, *paths: str) -> Any:
        """The first value that is there and not null, else None."""
        for path in paths:
            name, *keys = path.split(".")
            value: Any = self.files[name]
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                return value
        return None

    def error(self, path: str, reason: str) -> BundleError:
        """An error that names the file and the field of a path."""
        name, _, field = path.partition(".")
        return BundleError(self.directory, f"{FILES[name]}, {field}: {reason}")


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file.

    Raises:
        BundleError: It is something else.
    """
    if not file.is_file():
        return {}
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"larger than {_MOST_BYTES >> 20} MiB")
        document = parse_json(file.read_text("utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        if is_pointer(file):
            raise PartPointerError(file.parent, file.name) from error
        raise BundleError(file.parent, f"{file.name} is not JSON ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(document, dict):
        raise BundleError(file.parent, f"{file.name} is not a JSON object")
    return document


def find_layout(configuration: Configuration) -> Mapping[str, Any]:
    """The table's entry for a directory.

    Raises:
        BundleError: There is none, or it says why there cannot be one.
    """
    named = configuration.find("config.architectures") or ()
    if not isinstance(named, list | tuple):
        raise BundleError(configuration.directory, f"config.json, architectures: is {named!r}, expected a list")
    wanted = {str(name) for name in named}
    kind = configuration.find("config.model_type")
    for layout in layouts():
        if wanted & set(layout["architectures"]) or (not wanted and kind in layout["model_types"]):
            if "refused" in layout:
                raise BundleError(configuration.directory, layout["refused"])
            return layout
    known = ", ".join(name for layout in layouts() if "refused" not in layout for name in layout["architectures"])
    found = ", ".join(sorted(wanted)) or str(kind)
    reason = f"config.json names {found}, which cannot be opened without an export; known are {known}"
    raise BundleError(configuration.directory, reason)


@functools.cache
def layouts() -> tuple[Mapping[str, Any], ...]:
    """All entries of the table."""
    return tuple(json.loads(_TABLE.read_text("utf-8"))["layouts"])


def resolve(kind: type[Any], entry: Any, configuration: Configuration) -> Any:
    """A dataclass of :mod:`edge_mllm.bundle.spec` from an entry's section.

    A list is taken as alternatives: the first whose ``when`` holds is read.

    Raises:
        BundleError: A value is missing or makes no sense; the message names the file and the field.
    """
    if isinstance(entry, list):
        entry = _alternative(entry, configuration)
    try:
        return read_typed(kind, _value(entry, configuration), "")
    except FieldError as error:
        names = ", ".join(dict.fromkeys(_sources(entry)))
        raise BundleError(configuration.directory, f"{names}: {error}") from None


def require(entry: Mapping[str, Any], configuration: Configuration) -> None:
    """Check fields that may have one value only.

    Raises:
        BundleError: One has another.
    """
    for path, expected in entry.items():
        found = configuration.find(path)
        if found is not None and found != expected:
            raise configuration.error(path, f"is {json.dumps(found)}, which cannot be opened without an export")


def _alternative(entries: list[Any], configuration: Configuration) -> Any:
    paths = {path for entry in entries for path in entry["when"]}
    for entry in entries:
        if all(configuration.find(path) in values for path, values in entry["when"].items()):
            return {name: value for name, value in entry.items() if name != "when"}
    found = {path: configuration.find(path) for path in sorted(paths)}
    path, value = next(iter(found.items()))
    raise configuration.error(path, f"is {json.dumps(value)}, which cannot be opened without an export")


def _value(entry: Any, configuration: Configuration) -> Any:
    if isinstance(entry, list):
        return [_value(item, configuration) for item in entry]
    if not isinstance(entry, dict):
        return entry
    if "read" in entry:
        return _read(entry, configuration)
    for name, compute in _COMPUTED.items():
        if name in entry:
            return compute(entry, configuration)
    return {name: _value(item, configuration) for name, item in entry.items()}


def _read(entry: Mapping[str, Any], configuration: Configuration) -> Any:
    value = configuration.find(*entry["read"])
    if value is None:
        value = entry.get("default", _MISSING)
    if value is _MISSING:
        raise configuration.error(entry["read"][0], "is missing")
    if "names" in entry:
        names = entry["names"]
        if str(value) not in names and value not in names.values():
            raise configuration.error(entry["read"][0], f"is {value!r}, expected one of {', '.join(names)}")
        value = names.get(str(value), value)
    return value


def _number(entry: Mapping[str, Any], configuration: Configuration) -> int:
    operands = entry.get("tokens") or entry["product"]
    values = [_value(operand, configuration) for operand in operands]
    for operand, value in zip(operands, values, strict=True):
        lowest = 1 if isinstance(operand, dict) else None
        if not isinstance(value, int) or isinstance(value, bool) or (lowest is not None and value < lowest):
            path = next(_sources(operand), "config.json")
            raise BundleError(configuration.directory, f"{path}: is {value!r}, expected a whole number above 0")
    if "product" in entry:
        return int(values[0] * values[1])
    tile, patch, merge, extra = values
    return int((tile // patch // merge) ** 2 + extra)


def _grids(entry: Mapping[str, Any], configuration: Configuration) -> list[list[int]]:
    points, tile = _value(entry["in_tiles"], configuration), _value(entry["tile"], configuration)
    sides = [point if isinstance(point, list) and len(point) == 2 else [0] for point in points or ()]
    if not sides or any(not isinstance(n, int) or n < 1 or n % tile for point in sides for n in point):
        reason = f"is {str(points)[:80]}, expected [height, width] pairs in whole tiles of {tile} px"
        raise configuration.error(entry["in_tiles"]["read"][0], reason)
    return [[n // tile for n in point] for point in sides]


def _number_behind(entry: Mapping[str, Any], configuration: Configuration) -> int:
    text, start = str(_value(entry["number"], configuration)), str(entry["after"])
    digits = text.removeprefix(start)
    if not text.startswith(start) or not digits.isdecimal():
        raise configuration.error(entry["number"]["read"][0], f"is {text!r}, expected {start}N")
    return int(digits)


def _colour(entry: Mapping[str, Any], configuration: Configuration) -> list[int]:
    mean = _value(entry["colour"], configuration)
    if not isinstance(mean, list) or not all(isinstance(value, float) and 0 <= value <= 1 for value in mean):
        raise configuration.error(entry["colour"]["read"][0], f"is {mean!r}, expected three numbers from 0 to 1")
    return [int(value * 255) for value in mean]


_COMPUTED = {
    "tokens": _number,
    "product": _number,
    "in_tiles": _grids,
    "number": _number_behind,
    "colour": _colour,
}
"""Word that marks an entry to compute -> how."""


def _sources(entry: Any) -> Any:
    """Files and fields that an entry reads, for messages."""
    if isinstance(entry, dict) and "read" in entry:
        name, _, field = entry["read"][0].partition(".")
        yield f"{FILES[name]}, {field}"
    elif isinstance(entry, dict | list):
        for item in entry.values() if isinstance(entry, dict) else entry:
            yield from _sources(item)
