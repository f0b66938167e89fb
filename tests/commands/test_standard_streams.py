"""Streams as shells make them, and Ctrl-C at any moment: an exit code and at most one line, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands.command_line import DEMO, ROOT, STARTER, command_environment

COMMANDS = {
    "run": ("run", "Hi", "--max-new-tokens", "2"),
    "inspect": ("inspect",),
    "doctor": ("doctor",),
    "models": ("models",),
    "help": ("run", "--help"),
    "version": ("--version",),
}


def shell(redirected: str, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a shell, with what is written after it."""
    line = f'"$0" -m edge_mllm "$@" {redirected}'
    command = ["bash", "-c", line, sys.executable, *args]
    environment = command_environment() | (env or {})
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, timeout=120, check=False)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("redirected, reason", [(">&-", "standard output is closed"), (">/dev/full", "No space left")])
def test_output_that_cannot_be_written_is_one_line(name, redirected, reason):
    done = shell(redirected, *COMMANDS[name])
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("edge-mllm: ")]
    assert done.returncode == 1 and "Traceback" not in done.stderr.decode() and "Exception" not in done.stderr.decode()
    assert len(lines) == 1 and reason in lines[0]


@pytest.mark.parametrize("name", ["run", "inspect", "doctor", "models"])
def test_a_reader_that_leaves_is_no_error(name):
    done = shell("| true; exit ${PIPESTATUS[0]}", *COMMANDS[name])
    assert done.returncode in (0, 141) and "Traceback" not in done.stderr.decode()
    assert "Exception" not in done.stderr.decode() and b"edge-mllm: " not in done.stderr


def test_all_streams_closed(tmp_path):
    out = tmp_path / "answer"
    assert shell("<&- 2>&-", *COMMANDS["run"]).returncode == 0
    done = shell(f"<&- 2>&- >{out}", "run", "-i", str(DEMO / "label.png"), "Read the word.")
    assert (done.returncode, out.read_text().strip()) == (0, "Coffee")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_output_encoding(tmp_path, encoding):
    """A name outside the encoding is readable JSON all the same."""
    model = tmp_path / "модель-né.edge"
    shutil.copytree(STARTER, model)
    env = {"PYTHONIOENCODING": encoding}
    bare = env | {"PYTHONUTF8": "0", "LC_ALL": "C"}  # file names have no encoding either
    done = shell("", "inspect", str(model), env=bare)
    assert (done.returncode, done.stderr) == (0, b"") and b"starter" in done.stdout
    done = shell("", "models", str(tmp_path), "--json", env=env)
    assert any(Path(row["path"]).name == model.name for row in json.loads(done.stdout.decode(encoding)))
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"enum": ["é→"]}), "utf-8")
    answered = shell("", "run", "Hi", "--json", "--json-schema", str(schema), env=env)
    assert json.loads(answered.stdout.decode(encoding))["text"].strip('" ') == "é→"


INTERRUPTED_IMPORT = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
wanted = sys.argv[1]

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == wanted:
            signal.raise_signal(signal.SIGINT)

sys.argv[1:] = sys.argv[2:]
sys.meta_path.insert(0, Finder)
runpy.run_module("edge_mllm", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "module", ["typer", "edge_mllm.cli.main", "edge_mllm.cli.run", "numpy", "onnxruntime", "edge_mllm.session.session"]
)
def test_ctrl_c_while_it_starts(module):
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, module, *COMMANDS["run"]]
    environment = command_environment()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "edge-mllm: interrupted\n")


INTERRUPTED_STRING = """
import sys

def stop(frame, event, _):
    if event == "call" and frame.f_code.co_name == "open_bundle":
        exec("raise KeyboardInterrupt")

sys.setprofile(stop)
"""


def test_ctrl_c_in_code_from_a_string_ends_with_our_code(tmp_path):
    """As in a dataclass that is being made; Python would end itself by the signal, after our line."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_STRING)
    environment = command_environment()
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    command = [sys.executable, "-m", "edge_mllm", "inspect", str(STARTER)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "edge-mllm: interrupted\n")


@pytest.mark.parametrize("moment", [0.1, 0.25, 0.5])
def test_ctrl_c_by_the_clock(moment):
    """Whatever runs at that time; before Python itself has started nothing of ours can answer."""
    command = [sys.executable, "-m", "edge_mllm", "run", "Tell me a story", "--max-new-tokens", "1500"]
    ran = subprocess.Popen(command, env=command_environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        ran.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        ran.send_signal(signal.SIGINT)
    _, stderr = ran.communicate(timeout=60)
    if ran.returncode == -signal.SIGINT:  # the interpreter had not begun
        return
    assert "edge_mllm" not in stderr.decode() or b"Traceback" not in stderr
    assert ran.returncode in (0, 1, 130)


def test_an_interrupt_that_is_ignored_stays_ignored():
    """As scripts start background jobs, and nohup does."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from edge_mllm.cli.terminal import interrupts;"
        "interrupts.end_at_once_on_interrupt(); signal.raise_signal(signal.SIGINT); print('alive')"
    )
    command = [sys.executable, "-c", program]
    environment = dict(os.environ) | command_environment()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr
