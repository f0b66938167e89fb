"""Ctrl-C before a command has begun and after it has ended, when there is nothing to clean up."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

INTERRUPTED = 130
"""The exit code, as a shell reports a process ended by SIGINT."""


def end_at_once_on_interrupt() -> None:
    """From now on Ctrl-C ends the process with one line, imports that are under way included."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup and background jobs of scripts ignore it
        signal.signal(signal.SIGINT, _end)


@contextlib.contextmanager
def interrupts_raise() -> Iterator[None]:
    """While a command runs, Ctrl-C raises KeyboardInterrupt, so that it cleans up."""
    if signal.getsignal(signal.SIGINT) is not _end:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end)


def forget_interrupt() -> None:
    """A KeyboardInterrupt was handled: the process may end with an exit code of its own.

    CPython remembers one that leaves code run from a string, as dataclasses are made, and ends ``python -m`` by SIGINT
    even after it was handled (Python/pythonrun.c, run_eval_code_obj). The next string that runs makes it forget.
    """
    exec("")  # noqa: S102  (empty)


def _end(_number: int, _frame: FrameType | None) -> None:
    for stream, text in ((sys.stdout, ""), (sys.stderr, "edge-mllm: interrupted\n")):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # closed, or in the middle of a write
                stream.write(text)
                stream.flush()
    os._exit(INTERRUPTED)
