"""Forks of a server are processes like those that are started anew."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer

PROGRAM = """
import colorsys, json, os, sys
print(json.dumps([sys.argv[1:], os.getcwd(), os.environ.get("GIVEN"), sys.stdin.read(), __name__]))
print("told", file=sys.stderr)
print(os.getpid(), "colorsys" in sys.modules, file=sys.stderr)
sys.exit({"end": 3, "words": "in words", "none": None}[sys.argv[1]])
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer(["colorsys"], os.environ)
    yield made
    made.close()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


@pytest.mark.parametrize("how", ["end", "words", "none", "unknown"])
@pytest.mark.parametrize("kind", ["file", "module"])
def test_it_ends_and_tells_as_a_new_process_does(server: ForkServer, program: Path, kind: str, how: str) -> None:
    environment, folder = {**os.environ, "GIVEN": "caf\u00e9"}, program.parent
    form = ["-P", str(program)] if kind == "file" else ["-m", program.stem]
    new = subprocess.run(
        [sys.executable, *form, how, "x y"],
        input=b"given",
        env=environment,
        cwd=folder,
        capture_output=True,
        check=False,
    )
    started = program if kind == "file" else program.stem
    fork = server.run(started, [how, "x y"], stdin=b"given", env=environment, cwd=folder)
    assert (fork.returncode, fork.stdout) == (new.returncode, new.stdout)
    mine, theirs = fork.stderr.splitlines(), new.stderr.splitlines()
    assert mine[0] == theirs[0] == b"told"
    assert mine[1] != theirs[1] and mine[1].endswith(b"True")
    assert how != "words" or mine[-1] == theirs[-1] == b"in words"


def test_a_signal_and_a_time_limit(server: ForkServer, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("import os; os.abort()")
    assert server.run(file, [], env=os.environ).returncode == -6
    file.write_text("while True: pass")
    with pytest.raises(subprocess.TimeoutExpired):
        server.run(file, [], env=os.environ, timeout=0.2)


def test_environments_of_other_imports_are_known(server: ForkServer) -> None:
    other = {**os.environ, "HOME": "/elsewhere"}
    assert server.imported_as(other, ("HOME", "PYTEST_"))
    assert not server.imported_as(other, ("XDG_", "PYTEST_"))
    assert not server.imported_as({name: value for name, value in other.items() if name != "PATH"}, ("HOME", "PYTEST_"))
