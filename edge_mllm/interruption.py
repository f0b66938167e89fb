"""A way out of long work between its steps: whoever starts it hands in a check, and the loops of the work call it.

The check belongs to the thread that does the work. Interrupted work leaves what it was working on as Ctrl-C does:
usable, and with what was done so far.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_here = threading.local()


@contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Have ``check`` called between the steps of this thread's work in the block; what it raises ends the work."""
    before, _here.check = getattr(_here, "check", None), check
    try:
        yield
    finally:
        _here.check = before


def between_steps() -> None:
    """Called by loops that take long.

    Raises:
        Exception: What the check raises.
    """
    check = getattr(_here, "check", None)
    if check is not None:
        check()
