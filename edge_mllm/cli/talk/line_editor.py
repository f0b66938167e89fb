"""Lines from a terminal with editing, history and completion, or from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import typer

from edge_mllm.cli.talk.typed import COMMANDS

_PROMPT = "> "
_FOUND = 50
"""Most files that completion offers."""


class LineEditor:
    """The history lives as long as the chat; nothing of it is written to a disk."""

    def __init__(self) -> None:
        self.terminal = sys.stdin.isatty()
        self._readline = _readline() if self.terminal and sys.stdout.isatty() else None

    def remember(self, lines: Iterable[str]) -> None:
        """Put what was asked before into the history."""
        if self._readline is not None:
            for line in lines:
                self._readline.add_history(" ".join(line.split()))

    def read(self) -> str | None:
        """The next line without white space around it; None at the end of the input.

        Ctrl-C clears the line on a terminal.

        Raises:
            KeyboardInterrupt: Ctrl-C, and the input is no terminal.
        """
        if not self.terminal:
            line = sys.stdin.readline()
            return line.strip() if line else None
        while True:
            try:
                return input(_PROMPT).strip()
            except EOFError:
                return None
            except KeyboardInterrupt:
                typer.echo(" (/quit or Ctrl-D ends)", err=True)


def _readline() -> ModuleType | None:
    """Python's readline set up for a chat; None where Python was built without it."""
    try:
        import readline
    except ImportError:
        return None
    readline.set_completer_delims(" \t\n")
    readline.set_completer(_complete)
    if "libedit" in (readline.__doc__ or ""):
        readline.parse_and_bind("bind ^I rl_complete")
    else:
        readline.parse_and_bind("tab: complete")
        readline.parse_and_bind("set enable-bracketed-paste on")
    return readline


def _complete(text: str, state: int) -> str | None:
    """The ``state``-th command or path that begins with ``text``."""
    found = [f"{name} " for name in COMMANDS if text.startswith("/") and name.startswith(text)]
    found = (found + _paths(text))[:_FOUND]
    return found[state] if state < len(found) else None


def _paths(text: str) -> list[str]:
    folder, _, start = text.rpartition("/")
    place = Path(f"{folder}/" if folder or text.startswith("/") else ".").expanduser()
    try:
        names = sorted(each.name + ("/" if each.is_dir() else "") for each in place.iterdir())
    except OSError:
        return []
    head = text[: len(text) - len(start)]
    return [f"{head}{name}" for name in names if name.startswith(start) and " " not in name]
