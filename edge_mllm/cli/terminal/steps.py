"""A long work in steps: what a terminal shows of them, and how a signal ends it between two."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from edge_mllm.interruption import between_steps, interruptible


@contextmanager
def ended_politely() -> Iterator[None]:
    """Treat a polite end (SIGTERM, as ``timeout`` and service managers send it) like Ctrl-C, so that we clean up.

    Python drops what a signal raises while an object is finalised, so the next step asks again.
    """
    asked = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    # nohup and background jobs of scripts ignore Ctrl-C, and go on ignoring it.
    heard = [each for each in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        with interruptible(check):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def steps_shown(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Tells each step, and ends before it where that was asked for."""
    with _shown(quiet) as tell:

        def announce(step: str) -> None:
            between_steps()
            tell(step)

        yield announce


@contextmanager
def _shown(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner with the current step and its time on a terminal, one line per step elsewhere."""
    if quiet:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if not sys.stderr.isatty():
        yield lambda step: typer.echo(step, err=True)
        return
    columns = (SpinnerColumn(finished_text="done"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def announce(step: str) -> None:
            _finish(progress)
            progress.add_task(step, total=1)

        yield announce
        _finish(progress)


def _finish(progress: object) -> None:
    from rich.progress import Progress

    if isinstance(progress, Progress):
        for task in progress.tasks:
            progress.update(task.id, completed=1)
