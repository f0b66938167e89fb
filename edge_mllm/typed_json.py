"""JSON values as frozen dataclasses and back: strict, by the types of the fields themselves."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

LATER = {"later": True}
"""Metadata of a dataclass's field that a later mechanism added: JSON has it only where it is used, so that older
releases and phones read the others."""


class FieldError(Exception):
    """A field that does not have the type the dataclass names."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}" if where else reason)


def parse_json(text: str, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """As ``json.loads``, for text that other places write out again: half of a surrogate pair is an error.

    Raises:
        ValueError: It is no JSON, or holds such a half.
    """
    document = json.loads(text, parse_constant=parse_constant)
    if "\\u" in text:
        json.dumps(document, ensure_ascii=False).encode()
    return document


def plain(value: Any) -> Any:
    """Tuples as lists, all the way down; the rest as it is."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def leave_out(value: Any, data: dict[str, Any]) -> None:
    """Take fields out of ``data``, which the dataclass ``value`` became, that are :data:`LATER` and have their default.

    Args:
        value: A dataclass; those that are its fields are looked through too.
        data: From :func:`dataclasses.asdict`; changed.
    """
    for each in dataclasses.fields(value):
        held = getattr(value, each.name)
        if each.metadata == LATER and held == each.default:
            del data[each.name]
        elif dataclasses.is_dataclass(held):
            leave_out(held, data[each.name])


def read_typed(kind: Any, value: Any, where: str = "") -> Any:
    """Read ``value`` as the type ``kind``.

    Args:
        kind: A dataclass, a scalar type, or a tuple, dict, Literal or union of such types.
        value: What ``json.loads`` gave.
        where: Dotted path of the field, for the message of an error.

    Raises:
        FieldError: A missing or unknown field, or one of a wrong type.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    origin = get_origin(kind)
    if origin is Literal:
        if type(value) not in {type(choice) for choice in get_args(kind)} or value not in get_args(kind):
            allowed = ", ".join(str(choice) for choice in get_args(kind))
            raise FieldError(where, f"{value!r} is not one of {allowed}")
        return value
    if origin in (Union, types.UnionType):
        return _read_union(get_args(kind), value, where)
    if origin in (tuple, dict):
        return _read_container(origin, get_args(kind), value, where)
    return _read_scalar(kind, value, where)


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise FieldError(where, f"expected an object, found {_name(value)}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    prefix = f"{where}." if where else ""
    unknown = sorted(str(key) for key in value.keys() - fields.keys())
    if unknown:
        raise FieldError(prefix + unknown[0], "unknown field")
    for name, field in fields.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in value and not has_default:
            raise FieldError(prefix + name, "the field is missing")
    return kind(**{name: read_typed(hints[name], item, prefix + name) for name, item in value.items()})


def _read_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """``X | None``, or dataclasses told apart by their ``kind``."""
    if value is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    if len(rest) == 1:
        return read_typed(rest[0], value, where)
    found = value.get("kind") if isinstance(value, dict) else None
    by_kind = {kind.kind: kind for kind in rest}
    if not isinstance(found, str) or found not in by_kind:
        raise FieldError(f"{where}.kind", f"{found!r} is not one of {', '.join(by_kind)}")
    return read_typed(by_kind[found], value, where)


def _read_container(origin: Any, inner: tuple[Any, ...], value: Any, where: str) -> Any:
    if origin is dict:
        if not isinstance(value, dict):
            raise FieldError(where, f"expected an object, found {_name(value)}")
        return {key: read_typed(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if not isinstance(value, list):
        raise FieldError(where, f"expected a list, found {_name(value)}")
    if inner[-1] is Ellipsis:
        inner = (inner[0],) * len(value)
    elif len(inner) != len(value):
        raise FieldError(where, f"expected {len(inner)} items, found {len(value)}")
    return tuple(
        read_typed(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(inner, value, strict=True))
    )


def _read_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise FieldError(where, "it is no number of this size") from None
    if type(value) is not kind:
        raise FieldError(where, f"expected {kind.__name__}, found {_name(value)}")
    if kind is float and not math.isfinite(value):
        raise FieldError(where, f"{value} is not a finite number")
    return value


def _name(value: Any) -> str:
    return "null" if value is None else type(value).__name__
