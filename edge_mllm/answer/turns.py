"""One answer at a time: threads that ask one model wait for each other, or are refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from edge_mllm.errors import BusyError, ClosedError, ForkedError, SettingError

WhenBusy = Literal["wait", "raise"]


class Turns:
    """Who may use a model's decoder now.

    A turn may end in another thread than the one that took it: a stream that is dropped is finalised anywhere.

    Args:
        when_busy: ``wait`` for the answer of another thread to end, or ``raise`` at once.

    Raises:
        SettingError: ``when_busy`` is neither.
    """

    def __init__(self, when_busy: WhenBusy = "wait") -> None:
        if when_busy not in get_args(WhenBusy):
            raise SettingError(f"when_busy is '{when_busy}'; it must be one of {', '.join(get_args(WhenBusy))}")
        self.when_busy = when_busy
        self._changed = threading.Condition()  # its lock is reentrant: a finaliser may run while it is held
        self._holder: int | None = None
        self._process, self._closed = os.getpid(), False

    @property
    def forked(self) -> bool:
        """Whether this is another process than the one that made it: threads of native libraries are not here."""
        return os.getpid() != self._process

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the model for the time of a ``with`` block.

        Raises:
            BusyError: The same thread holds it (it has an open stream), or another one and ``when_busy`` is ``raise``.
            ClosedError: The model was closed.
            ForkedError: The process was forked after the model was loaded.
        """
        self._take()
        try:
            yield
        finally:
            with self._changed:
                self._holder = None
                self._changed.notify()

    def close(self) -> bool:
        """Let no further turn begin, after the one that another thread has; False where that was done before."""
        with self._changed:
            if self._closed:
                return False
            self._closed = True
            self._changed.notify_all()
            while self._holder not in (None, threading.get_ident()):
                self._changed.wait()
            return True

    def _take(self) -> None:
        if self.forked:
            raise ForkedError
        me = threading.get_ident()
        with self._changed:
            while self._holder is not None and not self._closed:
                if self._holder == me or self.when_busy == "raise":
                    raise BusyError(own=self._holder == me)
                self._changed.wait()
            if self._closed:
                raise ClosedError
            self._holder = me
