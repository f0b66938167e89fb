"""The phone's code on this machine's JVM; without Java or without ONNX Runtime for it these tests are skipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "android_demo" / "core.sh"
ORT = ROOT / "build" / "android" / "onnxruntime-1.26.0"


class Core:
    """One process that answers a JSON object a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        """What core says; an error is in its ``error``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **fields}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "core ended"
        reply: dict[str, Any] = json.loads(line)
        return reply


def _needed() -> str | None:
    """What is missing; None where all is there."""
    if os.name != "posix" or os.uname().machine != "x86_64" or not Path("/proc/self/status").exists():
        return "core's libraries for tests are for x86-64 Linux"
    missing = [tool for tool in ("java", "javac", "bash") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    if not (ORT / ".done").exists():
        return "ONNX Runtime for the JVM is not here; type: android_demo/build/fetch.sh"
    return None


@pytest.fixture(scope="session")
def core_script() -> Path:
    """core.sh, compiled."""
    reason = _needed()
    if reason is not None:
        pytest.skip(reason)
    done = subprocess.run([CORE.parent / "core" / "compile.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return CORE


@pytest.fixture(scope="session")
def core(core_script: Path) -> Iterator[Core]:
    """One JVM for all small questions of a session."""
    process = subprocess.Popen(
        [core_script, "lines"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    yield Core(process)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    assert process.wait(30) == 0
    process.stdout.close()
