"""Groups of options: a command takes a frozen dataclass, and the command line shows its fields.

An option is then written once, as a field with typer's ``Annotated`` type and a default, in the group that every
command takes which has it. A group may name sections of the help: ``SECTIONS``, title -> fields.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command: each parameter that is a dataclass becomes the options that are its fields, in its place.

    Parameters must be keyword-only from the first group on. Two options of one name are an error of the program.

    Raises:
        ValueError: Two parameters or fields have one name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = groups.get(parameter.name)
        plain = parameter.replace(annotation=hints[parameter.name])
        parameters += [plain] if kind is None else _parameters_of(kind)

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        made = {name: kind(**_taken(given, kind)) for name, kind in groups.items()}
        command(**given, **made)

    read: Any = wrapped  # typer reads both
    read.__signature__ = inspect.Signature(parameters)
    read.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def _parameters_of(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    sections: Mapping[str, tuple[str, ...]] = getattr(group, "SECTIONS", {})
    section = {field: title for title, fields in sections.items() for field in fields}
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=_in_section(hints[field.name], section.get(field.name)),
        )
        for field in dataclasses.fields(group)
    ]


def _in_section(hint: Any, section: str | None) -> Any:
    """The option's type with the section of the help that shows it."""
    if section is None:
        return hint
    kind, info, *rest = get_args(hint)
    info = copy.copy(info)
    info.rich_help_panel = section
    return Annotated[(kind, info, *rest)]  # type: ignore[return-value]


def _taken(given: dict[str, Any], group: type) -> Mapping[str, Any]:
    """The values of a group's fields, which leave ``given``."""
    return {field.name: given.pop(field.name) for field in dataclasses.fields(group)}
