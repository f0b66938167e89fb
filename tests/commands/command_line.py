"""The command line as a user starts it: a process of its own, with its exit code and both streams.

Most of these processes are forks of one that has imported what the command needs (:mod:`fork_server`); a test of how
the interpreter itself starts calls :func:`run_anew`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from unittest import mock

from fork_server import ForkServer

ROOT = Path(__file__).parents[2]
"""Of the repository."""
STARTER = ROOT / "edge_mllm" / "starter.edge"
"""The bundle that ships."""
DEMO = ROOT / "starter" / "demo"
"""label.png says Coffee, $4.60; sign.png says TRAM 18."""
_SOURCES = (ROOT, ROOT / "export", ROOT / "quant")
_CACHE = tempfile.TemporaryDirectory(prefix="edge-mllm-cache-")
"""What this machine's user keeps, such as tuned settings, must not change what a test sees."""


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """Standard output, which must be one JSON document, of a command that succeeded."""
        assert self.code == 0, self.stderr
        return json.loads(self.stdout)

    @property
    def errors(self) -> list[str]:
        """Lines of standard error."""
        return self.stderr.splitlines()


def command_environment() -> dict[str, str]:
    """Environment variables of a process that runs the command of this checkout."""
    paths = [*map(str, _SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "EDGE_MLLM_CACHE": _CACHE.name}


def in_terminal(*args: object, columns: int = 80) -> tuple[int, str]:
    """Run it in a terminal of so many columns; its exit code and all that is shown, without colours."""
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "edge_mllm", *map(str, args)]
    environment = command_environment() | {"TERM": "xterm", "COLUMNS": str(columns)}
    with subprocess.Popen(command, env=environment, stdin=secondary, stdout=secondary, stderr=secondary) as ran:
        os.close(secondary)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal's end is told
            while part := os.read(primary, 4096):
                shown += part
    os.close(primary)
    return ran.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")


def run_here(*args: object) -> Ended:
    """Run the installed command in this process, for the many cases that differ in what is typed only."""
    (script,) = entry_points(group="console_scripts", name="edge-mllm")
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    typed = ["edge-mllm", *map(str, args)]
    code: object = 0
    with mock.patch.object(sys, "argv", typed), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        root = logging.getLogger()
        level, handlers = root.level, root.handlers[:]
        try:
            script.load()()
        except SystemExit as ended:
            code = ended.code or 0
        finally:  # the command sets up the log of its own process
            root.setLevel(level)
            root.handlers[:] = handlers
    assert isinstance(code, int)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return Ended(code, *texts)


def run_command(
    *args: object,
    stdin: str | bytes = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 300,
) -> Ended:
    """Run ``edge-mllm`` and wait for its end.

    Args:
        args: As they are typed.
        stdin: What is piped in.
        env: Environment variables to set beside those of this process.
        cwd: Where it is started; default: here.
        seconds: After this time the test fails.
    """
    given = stdin if isinstance(stdin, bytes) else stdin.encode()
    environment, words = command_environment() | dict(env or {}), [*map(str, args)]
    exports = words[:1] == ["export"] and not {"-h", "--help"} & set(words)
    server = _forks(exports)
    if not server.imported_as(environment, _READ_LATE if exports else (*_READ_LATE, "HF_")):
        return run_anew(*words, stdin=given, env=env, cwd=cwd, seconds=seconds)
    done = server.run("edge_mllm", words, stdin=given, env=environment, cwd=cwd, timeout=seconds)
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def run_anew(
    *args: object,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 300,
) -> Ended:
    """:func:`run_command` in an interpreter that starts for it."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_mllm", *map(str, args)],
        input=stdin,
        capture_output=True,
        env=command_environment() | dict(env or {}),
        cwd=cwd,
        timeout=seconds,
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


_READ_LATE = ("EDGE_MLLM_", "HOME", "XDG_", "PYTEST_")
"""How names of variables begin that no module reads while it is imported; huggingface_hub reads HF_ and is imported for
exports alone."""
_RUN = ("edge_mllm.cli.main", "numpy", "PIL.Image", "tokenizers", "jinja2.sandbox", "onnxruntime")
_EXPORT = (*_RUN, "edge_mllm_export.pipeline", "torch", "torch.onnx", "transformers")
"""What commands that run a model find imported, and what exports do."""


@functools.cache
def _forks(export: bool) -> ForkServer:
    server = ForkServer(_EXPORT if export else _RUN, command_environment())
    atexit.register(server.close)
    return server
