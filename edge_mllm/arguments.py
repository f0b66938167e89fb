"""Arguments of the public functions, checked for their type before they are compared with anything."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from edge_mllm.errors import SettingError

_WORDS: dict[type, str] = {Integral: "a whole number", Real: "a number", str: "text", bool: "true or false"}


def require(name: str, value: Any, kind: type, wanted: str | None = None) -> None:
    """Refuse a value of another type.

    Args:
        name: The argument's.
        value: What was given.
        kind: ``numbers.Integral``, ``numbers.Real``, or a class. True and false are no numbers.
        wanted: What it must be, in words; None for what the kind is called.

    Raises:
        SettingError: It has another type.
    """
    if isinstance(value, kind) and not (isinstance(value, bool) and kind in (Integral, Real)):
        return
    shown = repr(value) if isinstance(value, str | int | float | None) else f"of type {type(value).__name__}"
    raise SettingError(f"{name} is {shown}; it must be {wanted or _WORDS.get(kind, kind.__name__)}")


def require_numbers(kind: type, **values: Any) -> None:
    """As :func:`require` for several numbers, each of which may be None."""
    for name, value in values.items():
        if value is not None:
            require(name, value, kind)


def require_known(options: Mapping[str, Any], kind: type) -> None:
    """Refuse names that are no options.

    Args:
        options: As they were given by name.
        kind: The TypedDict that lists them.

    Raises:
        SettingError: One is unknown; the message has the nearest known one.
    """
    known = kind.__annotations__
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise SettingError(f"there is no option {name}" + (f"; did you mean {near[0]}?" if near else ""))
