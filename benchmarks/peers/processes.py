"""Peers as processes that are stopped while others work, and their memory as the kernel counts it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

from protocol import Job, Question, Reply

HERE = Path(__file__).parent
_TAIL = 1500
_EVERY_S = 0.02


class PeerFailedError(Exception):
    """A peer's process ended or said something that is no reply; carries the last lines it wrote."""


@dataclass
class MemoryPeaks:
    """Largest values seen, in bytes."""

    resident: int = 0
    """The kernel's own high-water mark."""
    anonymous: int = 0
    """The process's own pages, sampled 50 times a second; pages of mapped files are not among them."""


def available_bytes() -> int:
    """Memory that a further process can have."""
    (line,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def prepare(python: str, script: str, job: Job, limit_s: float) -> None:
    """Have a peer make its model files.

    Raises:
        PeerFailedError: It did not succeed in time.
    """
    log = Path(job.out) / "prepare.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        command = [python, str(HERE / script), "prepare", json.dumps(asdict(job))]
        try:
            done = subprocess.run(command, stdout=stream, stderr=stream, timeout=limit_s, env=_environment(job))
        except subprocess.TimeoutExpired as error:
            raise PeerFailedError(f"preparing took longer than {limit_s:.0f} s") from error
    if done.returncode < 0:
        raise PeerFailedError(f"preparing was ended by signal {-done.returncode} (9: memory ran out)")
    if done.returncode:
        raise PeerFailedError(_last_line(log.read_text(errors="replace")))


class PeerProcess:
    """A peer that holds its model. It runs only between a question and its reply."""

    def __init__(self, python: str, script: str, job: Job) -> None:
        self._log = (Path(job.out) / "serve.log").open("w+b")
        command = [python, str(HERE / script), "serve", json.dumps(asdict(job))]
        start = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=_environment(job)
        )
        self.memory = MemoryPeaks()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()
        try:
            opened = self._receive()
        except PeerFailedError:
            self.close()
            raise
        self.files: list[str] = opened["files"]
        self.about: dict[str, Any] = opened["about"]
        self.start_s = time.perf_counter() - start
        self._signal(signal.SIGSTOP)

    def ask(self, question: Question, *, again: bool = False) -> Reply | None:
        """Wake it, have a question answered, and stop it."""
        self._signal(signal.SIGCONT)
        pipe = cast("IO[str]", self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # the process has ended; _receive says why
            pipe.write(json.dumps({"do": "again" if again else "answer", "question": asdict(question)}) + "\n")
            pipe.flush()
        reply = self._receive()["reply"]
        self._signal(signal.SIGSTOP)
        return None if reply is None else Reply(**reply)

    def close(self) -> None:
        """End the process."""
        self._over.set()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._watch.join()
        self._log.close()

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def _receive(self) -> Any:
        line = cast("IO[str]", self._process.stdout).readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._log.seek(0)
        reason = _last_line(self._log.read().decode(errors="replace"))
        raise PeerFailedError(f"{f'signal {-code}' if code < 0 else f'exit code {code}'}: {reason}")

    def _sample(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        while not self._over.wait(_EVERY_S):
            try:
                lines = status.read_text().splitlines()
            except OSError:
                return
            fields = {line.split(":")[0]: line.split() for line in lines if line.startswith(("VmHWM", "RssAnon"))}
            if "VmHWM" in fields:
                self.memory.resident = int(fields["VmHWM"][1]) * 1024
                self.memory.anonymous = max(self.memory.anonymous, int(fields["RssAnon"][1]) * 1024)


def _environment(job: Job) -> dict[str, str]:
    """No network, no progress bars, and the same number of threads for every library that reads a variable."""
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(job.threads))
    return {**os.environ, **quiet, **threads, "HF_HUB_DISABLE_TELEMETRY": "1", "NNCF_CI": "1"}


def _last_line(text: str) -> str:
    """The last line that names an exception, else the last one."""
    lines = [line.strip() for line in text[-_TAIL:].splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (named or lines or ["no message"])[-1][:400]
