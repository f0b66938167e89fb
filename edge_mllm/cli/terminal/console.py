"""Tables for people, readable in a pipe as well."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 10_000


def wide_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; in a pipe or a file, so wide that every line stays one."""
    from rich.console import Console

    class Piped(Console):
        """Where rich would exit with 1, the reader that left is told to the command, which exits as others do."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    return Piped(stderr=stderr, highlight=False, markup=False, width=None if stream.isatty() else _PIPE_WIDTH)
