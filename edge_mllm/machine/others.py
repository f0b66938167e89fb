"""What other programs do to a measurement: how many of our cores they kept busy meanwhile.

From the counters of the cores this process may use (``/proc/stat``), less the processor time of this process and of its
children that have ended. The load average is of no use for that: it counts ourselves and lags by a minute.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_COUNTERS = Path("/proc/stat")
_IDLE = (3, 4)
"""Fields of a core's line: idle, and waiting for a disk."""
_COUNTED = 8
"""Fields after that (guests') are part of those before."""


class OtherWork:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._busy, self._own, self._start = _busy_seconds(), _own_seconds(), time.perf_counter()

    def cores(self) -> float | None:
        """Cores that other programs kept busy so far, on average; None where the system does not tell."""
        busy, passed = _busy_seconds(), time.perf_counter() - self._start
        if self._busy is None or busy is None or passed <= 0:
            return None
        return max(0.0, (busy - self._busy - (_own_seconds() - self._own)) / passed)


def others_now(seconds: float = 0.5) -> float | None:
    """Cores that other programs keep busy at the moment; takes so many seconds."""
    work = OtherWork()
    time.sleep(seconds)
    return work.cores()


def competes(cores: float | None, usable: int | None = None) -> bool:
    """Whether so much work of others changes what is measured: a tenth of the usable cores (None: this process's)."""
    return cores is not None and cores > 0.1 * (usable or len(os.sched_getaffinity(0)))


def _busy_seconds() -> float | None:
    try:
        lines = _COUNTERS.read_text("ascii").splitlines()
        ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        counters = [line.split() for line in lines if line.partition(" ")[0] in ours]
    except (OSError, AttributeError):
        return None
    ticks = sum(
        int(value) for fields in counters for place, value in enumerate(fields[1 : 1 + _COUNTED]) if place not in _IDLE
    )
    return ticks / os.sysconf("SC_CLK_TCK") if counters else None


def _own_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
