"""Resident memory of this process, split into its own pages and pages of mapped files; the peak is in machine.memory.

Weights that are memory-mapped count as file pages: the kernel may drop them under pressure. Anonymous pages it may not.
Source of the formats: Linux ``Documentation/filesystems/proc.rst``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_mllm.machine.memory import PROCESS, peak_rss_bytes, sizes


@dataclass(frozen=True)
class Resident:
    """Bytes resident at one moment; the split is None where the system does not tell."""

    rss: int
    anonymous: int | None
    file: int | None
    swapped: int | None


def resident(process: Path = PROCESS) -> Resident:
    """Read the resident memory of a process.

    ``smaps_rollup`` is exact; ``status`` may lag by some pages a thread and is read where the former is hidden.
    """
    for file, names in (("smaps_rollup", ("Rss", "Anonymous", "Swap")), ("status", ("VmRSS", "RssAnon", "VmSwap"))):
        rss, anonymous, swapped = map(sizes(process / file).get, names)
        if rss is not None and anonymous is not None:
            return Resident(rss, anonymous, rss - anonymous, swapped)
    return Resident(peak_rss_bytes() or 0, None, None, None)


def reset_peak(process: Path = PROCESS) -> bool:
    """Let the peak resident size start again from the present one; False where the system does not allow it."""
    try:
        (process / "clear_refs").write_text("5")
    except OSError:
        return False
    return True
