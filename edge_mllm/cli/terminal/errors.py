"""Errors as one plain line on standard error, and the exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import typer

from edge_mllm.cli.terminal.interrupts import INTERRUPTED, forget_interrupt, interrupts_raise
from edge_mllm.cli.terminal.streams import BROKEN_PIPE, silence_stdout
from edge_mllm.errors import EdgeMLLMError

P = ParamSpec("P")
R = TypeVar("R")

OTHER_NAMES = {"overrides": "override"}
"""Arguments of the library whose options have another name."""
_ARGUMENT = re.compile(r"`(?P<name>[a-z]\w*)(?:=(?P<value>[^`]*))?`")
TRACEBACK_VARIABLE = "EDGE_MLLM_TRACEBACK"


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: what it raises becomes a line and an exit code.

    With the environment variable EDGE_MLLM_TRACEBACK=1 errors keep their traceback.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with interrupts_raise():
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            forget_interrupt()
            fail("interrupted", INTERRUPTED)
        except BrokenPipeError:
            silence_stdout()
            raise typer.Exit(BROKEN_PIPE) from None
        except Exception as error:
            if isinstance(error, typer.Exit | typer.Abort) or os.environ.get(TRACEBACK_VARIABLE) == "1":
                raise
            if not _is_expected(error):
                raise
            fail(_line(error))

    return wrapped


def fail(message: str, code: int = 1) -> NoReturn:
    """Print one line on standard error and end the command."""
    typer.echo(f"edge-mllm: {message}", err=True)
    raise typer.Exit(code)


class LogLines(logging.Handler):
    """Writes lines of the log to what is standard error when they come, with options as they are typed here.

    While rich redraws the last line of a terminal it stands in the place of standard error.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one; what goes wrong is told as by other handlers of the standard library."""
        try:
            sys.stderr.write(f"{as_typed(self.format(record))}\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # full or closed
            self.handleError(record)


def as_typed(message: str) -> str:
    """A message of the library with its arguments as they are typed here.

    The library names arguments between backticks: ``low_memory``, ``detail='low'``, ``verify=False``. Here they are
    ``--low-memory``, ``--detail low`` and ``--no-verify``.
    """
    return _ARGUMENT.sub(_flag, message)


def _flag(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    flag = OTHER_NAMES.get(name, name).replace("_", "-")
    if value == "False":
        return f"--no-{flag}"
    return f"--{flag}" if value in (None, "True") else f"--{flag} {value.strip(chr(39))}"


def _is_expected(error: Exception) -> bool:
    """Our own errors, and what the machine itself refuses (disk, memory, permissions)."""
    return isinstance(error, EdgeMLLMError | OSError | MemoryError)


def _line(error: Exception) -> str:
    text = as_typed(" ".join(str(error).split()))
    if isinstance(error, MemoryError):
        return f"out of memory ({text})" if text else "out of memory"
    return text or type(error).__name__
