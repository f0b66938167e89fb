"""Help in sections: options by what they are about, commands by what one wants to do. Plain text, at any width."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup


def _sections(items: Iterable[tuple[Any, Any]], rest: str) -> dict[str, list[Any]]:
    """Records by their section, those without one under ``rest``, in the order in which sections occur."""
    found: dict[str, list[Any]] = {}
    for item, record in items:
        found.setdefault(getattr(item, "rich_help_panel", None) or rest, []).append(record)
    return found


def _write(formatter: Any, sections: dict[str, list[Any]]) -> None:
    for title, records in sections.items():
        with formatter.section(title):
            formatter.write_dl(records)


def _write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    shown = [(each, each.get_help_record(ctx)) for each in command.get_params(ctx)]
    for kind, rest in (("argument", "Arguments"), ("option", "Options")):
        kept = [(each, record) for each, record in shown if record is not None and each.param_type_name == kind]
        _write(formatter, _sections(kept, rest))


class SectionedCommand(TyperCommand):
    """A command whose options are shown in their sections."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        _write_parameters(self, ctx, formatter)


class SectionedGroup(TyperGroup):
    """A group whose commands are shown in their sections."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write options and, as typer's groups do, commands after them."""
        _write_parameters(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, each with its first sentence as far as it fits."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        shown: list[tuple[str, Any]] = [(name, command) for name, command in found if command and not command.hidden]
        width = formatter.width - 6 - max(len(name) for name, _ in shown)
        rows = ((command, (name, command.get_short_help_str(width))) for name, command in shown)
        _write(formatter, _sections(rows, "Commands"))
