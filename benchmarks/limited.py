"""One ``edge-mllm`` process, measured and held to a time and a memory limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_EVERY_S = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Limits:
    """The most a process may take."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Ran:
    """A process that ended or was stopped."""

    seconds: float
    peak_bytes: int
    """Largest sum of resident bytes of the process and its children, sampled five times a second."""
    stdout: str
    stderr: str
    code: int
    stopped: str | None
    """The limit that it reached."""

    @property
    def failure(self) -> str | None:
        """Why there is no result; None where there is one."""
        return self.stopped or (self.stderr.strip()[-300:] if self.code else None)


def run_limited(arguments: list[str], limits: Limits) -> Ran:
    """Run ``edge-mllm`` with these arguments; at a limit the process and its children are killed."""
    stopped, peak = None, 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        command = [sys.executable, "-m", "edge_mllm", *arguments]
        process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        while process.poll() is None:
            peak = max(peak, session_bytes(process.pid))
            if peak > limits.bytes:
                stopped = f"more than {limits.bytes / (1 << 30):g} GiB"
            elif time.perf_counter() - start > limits.seconds:
                stopped = f"more than {limits.seconds / 60:g} minutes"
            if stopped:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            time.sleep(_EVERY_S)
        seconds = time.perf_counter() - start
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
    return Ran(seconds, peak, texts[0], texts[1], process.returncode, stopped)


def session_bytes(leader: int) -> int:
    """Resident bytes of all processes of a session; pages that they share count for each."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                total += int(fields[21]) * _PAGE if int(fields[3]) == leader else 0
            except (OSError, IndexError):  # it has ended
                continue
    return total
