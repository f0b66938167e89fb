"""Tables of a command's options, from the command line itself."""

from __future__ import annotations

import html
from typing import Any

from benchmarks.pages.tables import table


def options(command: str) -> str:
    """A row for every argument and option of a command, as its ``--help`` tells them.

    Raises:
        KeyError: There is no command of this name.
    """
    import typer

    from edge_mllm.cli.main import app

    group: Any = typer.main.get_command(app)
    found = group.commands[command]
    context = found.make_context(command, [], resilient_parsing=True)
    records = [parameter.get_help_record(context) for parameter in found.get_params(context)]
    rows = [[_code(names), _cell(meaning)] for names, meaning in filter(None, records) if names != "--help"]
    return table([f"`edge-mllm {command}`", "what it does"], rows)


def _code(names: str) -> str:
    return f"<code>{_cell(names)}</code>"


def _cell(text: str) -> str:
    """Text of a table cell: a bar would end it, a bracket would begin a tag or a link."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(_ESCAPED.get(character, character) for character in escaped)


_ESCAPED = {"|": "&#124;", "[": "&#91;", "]": "&#93;", "*": "&#42;", "_": "&#95;", "`": "&#96;"}
