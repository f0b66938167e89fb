"""Memory of this process, as the operating system reports it, and giving back what lies unused in the heap."""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path

MEMORY, PROCESS = Path("/proc/meminfo"), Path("/proc/self")
_STATUS = PROCESS / "status"


def peak_rss_bytes() -> int | None:
    """Highest resident set size of this process so far in bytes, or None where the system does not tell."""
    from_proc = sizes(_STATUS).get("VmHWM")
    if from_proc is not None:
        return from_proc
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int | None:
    """Resident set size of this process now, in bytes, or None where the system does not tell."""
    return sizes(_STATUS).get("VmRSS")


def large_page_bytes() -> int | None:
    """Bytes of this process's own memory in large pages now, or None where the system does not tell."""
    return sizes(PROCESS / "smaps_rollup").get("AnonHugePages")


class AnonymousPeak:
    """The largest anonymous memory seen: pages that belong to no file, which the system cannot drop under pressure.

    No kernel counts its peak, so it is read where it is highest: after the tower, after prefill, after the answer.
    """

    def __init__(self) -> None:
        self.bytes: int | None = None
        """None where the system does not tell."""

    def note(self) -> None:
        """Read it now."""
        now = sizes(_STATUS).get("RssAnon")
        if now is not None:
            self.bytes = max(now, self.bytes or 0)


def available_bytes() -> int | None:
    """What can be used without swapping; None where the system does not tell."""
    return sizes(MEMORY).get("MemAvailable")


def trim_heap() -> None:
    """Give freed memory back to the system where the C library keeps it (glibc); elsewhere nothing happens.

    Parsing a model file leaves about half the file's size of freed blocks behind, which count as resident.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found


def sizes(file: Path) -> dict[str, int]:
    """Sizes that a file of /proc gives in kB, in bytes, by the names of their lines; none where it cannot be read."""
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError:
        return {}
    return {name: int(number) * 1024 for name, number in re.findall(r"^([^:\n]+):\s+(\d+) kB$", text, re.MULTILINE)}
