"""Objects of native libraries: freed once, by hand or when nothing refers to them any longer."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from edge_mllm.errors import ClosedError


class NativeHandle:
    """Owns one native object.

    Args:
        address: The library's handle, which is not null.
        free: The library's function that frees it.
        needs: What must not be freed before it.
    """

    def __init__(self, address: Any, free: Callable[[Any], object], *needs: NativeHandle) -> None:
        self._address = address
        # The finaliser refers to what is needed, so that it stays until this object is gone, whatever order garbage
        # is collected in.
        self._finalizer = weakref.finalize(self, _free, free, address, os.getpid(), needs)
        self._finalizer.atexit = False  # the system frees faster, and a forked child must not free at all

    @property
    def address(self) -> Any:
        """The library's handle.

        Raises:
            ClosedError: It was freed.
        """
        if not self._finalizer.alive:
            raise ClosedError
        return self._address

    @property
    def open(self) -> bool:
        """Whether it is still there."""
        return self._finalizer.alive

    def close(self) -> None:
        """Free it now; further calls do nothing."""
        self._finalizer()


def _free(free: Callable[[Any], object], address: Any, process: int, _needs: tuple[NativeHandle, ...]) -> None:
    """Free in the process that made it: a forked one lacks the library's threads, and waits for them for ever."""
    if os.getpid() == process:
        free(address)
