"""Processes that begin with their modules imported already: forks of a server, for programs that many tests start.

A fork has a process number, an exit code, an environment, a directory and three streams of its own, and runs the very
program that a new interpreter would. What it saves is the second or more that importing takes every time. The server
imports and does nothing else, so that no thread runs in it when it forks.

As a program, this file is the server. Arguments: the number of its socket, then the modules.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

_MOST_BYTES = 1 << 20
"""Of one job's description."""


class ForkServer:
    """The server's side in the tests."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it; the imports go on while tests run.

        Args:
            modules: What programs find imported.
            environment: That of the imports; a fork gets another one later.
        """
        self.environment = dict(environment)
        self._jobs, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, str(Path(__file__)), str(theirs.fileno()), *modules]
            # Python's own streams are then made for pipes, as the forks have them too.
            streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            self._server = subprocess.Popen(command, env=self.environment, pass_fds=[theirs.fileno()], **streams)

    def imported_as(self, environment: Mapping[str, str], read_late: tuple[str, ...]) -> bool:
        """Whether the imports would be the same in another environment.

        Args:
            environment: The other one.
            read_late: Beginnings of names that only a running program reads.
        """
        both = {*environment, *self.environment}
        return all(name.startswith(read_late) or environment.get(name) == self.environment.get(name) for name in both)

    def run(
        self,
        program: str | Path,
        words: Sequence[str],
        *,
        env: Mapping[str, str],
        stdin: bytes = b"",
        cwd: Path | None = None,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """What :func:`subprocess.run` gives, of a module (``python -m``) or of a file (``python -P``).

        Raises:
            subprocess.TimeoutExpired: It did not end in time, and was killed.
        """
        job = {"env": dict(env), "cwd": str(cwd or Path.cwd()), "words": list(words)}
        job |= {"file": str(program)} if isinstance(program, Path) else {"module": program}
        with ExitStack() as ours:
            end, pipes = self._begin(job, ours)
            told = end.recv(64)
            if not told:
                raise RuntimeError(f"the fork server ended: {self._server.communicate()[1].decode()}")
            process = int(told)
            read = [_Reader(ours.enter_context(os.fdopen(fd, "rb"))) for fd in pipes[1:]]
            with suppress(BrokenPipeError), os.fdopen(pipes[0], "wb") as given:
                given.write(stdin)
            end.settimeout(timeout)
            try:
                code = int(end.recv(64))
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                raise subprocess.TimeoutExpired([str(program), *words], timeout or 0) from None
            return subprocess.CompletedProcess([str(program), *words], code, *(each.text() for each in read))

    def _begin(self, job: dict[str, Any], ours: ExitStack) -> tuple[socket.socket, list[int]]:
        """Send a job with its four ends: the socket that tells of it, and our ends of its three streams."""
        end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.enter_context(end)
        pipes = [os.pipe() for _ in range(3)]
        given = [pipes[0][0], pipes[1][1], pipes[2][1]]
        socket.send_fds(self._jobs, [json.dumps(job).encode()], [*given, theirs.fileno()])
        theirs.close()
        for number in given:
            os.close(number)
        return end, [pipes[0][1], pipes[1][0], pipes[2][0]]

    def close(self) -> None:
        """End the server; forks that still run go on."""
        self._jobs.close()
        self._server.communicate()


class _Reader:
    """Reads a stream to its end in a thread."""

    def __init__(self, stream: Any) -> None:
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=lambda: self._parts.append(stream.read()))
        self._thread.start()

    def text(self) -> bytes:
        self._thread.join()
        return self._parts[0]


def _next_job(jobs: socket.socket) -> dict[str, Any] | None:
    """In every fork: what it shall do; in the server, once the tests are over: None."""
    while True:
        data, ends, *_ = socket.recv_fds(jobs, _MOST_BYTES, 4)
        if not data:
            return None
        if os.fork() == 0:
            jobs.close()
            _leave_to_child(ends)
            return dict(json.loads(data))
        for number in ends:
            os.close(number)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _leave_to_child(ends: list[int]) -> None:
    """Return in a child with the three streams; its parent tells its number and how it ended."""
    *streams, told = ends
    child = os.fork()
    if child:
        for number in streams:
            os.close(number)
        os.write(told, str(child).encode())
        os.write(told, str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    os.close(told)
    for place, number in enumerate(streams):
        os.dup2(number, place)
        os.close(number)


def _become(job: dict[str, Any], set_by_imports: dict[str, str]) -> None:
    """Run the program as an interpreter that has just begun."""
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(set_by_imports | job["env"])
    sys.argv = [job.get("file", ""), *job["words"]]
    if "module" in job:
        sys.path.insert(0, job["cwd"])
        runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(job["file"], run_name="__main__")


def main() -> None:
    """Import, then fork for every job."""
    del sys.path[0]  # the folder of this file
    jobs = socket.socket(fileno=int(sys.argv[1]))
    before = dict(os.environ)
    for name in sys.argv[2:]:
        importlib.import_module(name)
    set_by_imports = {name: value for name, value in os.environ.items() if before.get(name) != value}
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page of what is imported
    job = _next_job(jobs)
    if job is not None:
        _become(job, set_by_imports)


if __name__ == "__main__":
    main()
