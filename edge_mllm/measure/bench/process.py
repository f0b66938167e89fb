"""The other end of :mod:`edge_mllm.measure.bench.worker`: a child process that holds one model."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from edge_mllm.answer.answer import StageDevice
from edge_mllm.errors import BenchError
from edge_mllm.measure.bench.memory import Resident
from edge_mllm.measure.bench.result import Case, Counts, Sample
from edge_mllm.typed_json import read_typed

WORKER = (sys.executable, "-m", "edge_mllm.measure.bench.worker")
_TAIL = 400


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """How a model came up."""

    seconds: float
    engine: str
    threads: int
    before: Resident
    loaded: Resident
    devices: dict[str, StageDevice]
    """Stage -> what runs it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """One measured answer."""

    sample: Sample
    counts: Counts
    refused: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryNow:
    """Resident memory of the process."""

    steady: Resident
    peak: int | None


class ModelProcess:
    """A fresh process, started on entry and ended on exit.

    Args:
        command: what to start; tests start another program.

    Raises:
        BenchError: from any method, when the process reports an error or ends.
    """

    def __init__(self, command: Sequence[str] = WORKER) -> None:
        self._command = list(command)
        self.start_seconds = 0.0
        """From starting the process to its first word: interpreter and imports."""

    def __enter__(self) -> ModelProcess:
        """Start the process and wait until it is ready."""
        self._log = tempfile.TemporaryFile()
        start = time.perf_counter()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        try:
            self._receive()
        except BaseException:
            self.__exit__()
            raise
        self.start_seconds = time.perf_counter() - start
        return self

    def __exit__(self, *_: object) -> None:
        """End the process; one that does not end by itself is killed."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def load(self, case: Case) -> Opened:
        """Open the model of a case."""
        opened: Opened = read_typed(Opened, self._ask({"do": "load", "case": dataclasses.asdict(case)}))
        return opened

    def answer(self, number: int, *, second: bool = False) -> Reply:
        """Have question ``number`` answered."""
        reply: Reply = read_typed(Reply, self._ask({"do": "answer", "number": number, "second": second}))
        return reply

    def memory(self) -> MemoryNow:
        """Look at the process's memory."""
        now: MemoryNow = read_typed(MemoryNow, self._ask({"do": "memory"}))
        return now

    def _ask(self, command: dict[str, Any]) -> Any:
        pipe = cast("IO[str]", self._process.stdin)
        try:
            pipe.write(json.dumps(command) + "\n")
            pipe.flush()
        except BrokenPipeError:
            pass  # the reason is in the log; _receive reports it
        return self._receive()

    def _receive(self) -> Any:
        line = cast("IO[str]", self._process.stdout).readline()
        if not line:
            raise BenchError(f"the measuring process ended ({self._ending()})")
        message = json.loads(line)
        if "error" in message:
            raise BenchError(message["error"])
        return message

    def _ending(self) -> str:
        code = self._process.wait(timeout=10)
        self._log.seek(0)
        tail = " ".join(self._log.read()[-_TAIL:].decode(errors="replace").split())
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}: {tail}" if tail else how


def drop_from_page_cache(path: Path) -> bool:
    """Have the system forget the pages of a file or of all files in a directory.

    Returns:
        False where the system has no such call; pages that another process maps stay all the same.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages that are not written yet cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
