"""A process that answers lines, watched, and started again after a line that ended it."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_SECONDS, MAX_BYTES = 20.0, 4 << 30
"""Of a line; seconds are those of a processor, which other programs do not make longer."""
MAX_WAIT = 120.0
"""Seconds of the clock after which a process that does nothing is ended."""


@dataclass(frozen=True)
class Reply:
    """What came of one line."""

    line: str | None
    """None where the process was ended, by itself or from here."""
    outcome: str = ""
    """``time``, ``memory`` or ``crash``, without a line."""
    text: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    """Largest resident size that was seen."""


class Watched:
    """The process."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self._command, self._environment = command, os.environ | environment
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)

    def ask(self, line: str) -> Reply:
        """Write a line, and wait for one."""
        if self._process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
            self._process = subprocess.Popen(self._command, encoding="utf-8", env=self._environment, **pipes)
        process, start, peak = self._process, time.perf_counter(), 0
        before = _worked_seconds(process.pid)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        while not select.select([process.stdout], [], [], 0.05)[0]:
            peak, waited = max(peak, _resident(process.pid)), time.perf_counter() - start
            late = _worked_seconds(process.pid) - before > MAX_SECONDS or waited > MAX_WAIT
            if late or peak > MAX_BYTES:
                self.close()
                return Reply(None, "time" if late else "memory", "", round(waited, 1), peak)
        found = process.stdout.readline()
        if found:
            return Reply(found, seconds=round(time.perf_counter() - start, 3), peak_bytes=peak)
        code = process.wait()
        self._errors.seek(0)
        said = " ".join(self._errors.read()[-600:].split())
        self.close()
        return Reply(None, "crash", f"exit {code}: {said}", 0.0, peak)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
        self._process = None
        self._errors.seek(0)
        self._errors.truncate()


def _resident(process: int) -> int:
    try:
        fields = Path(f"/proc/{process}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _worked_seconds(process: int) -> float:
    """Seconds of processors that a process has used."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
