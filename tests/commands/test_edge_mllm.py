"""``edge-mllm`` itself, end to end: its contents page, its version and its log."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer
from commands.command_line import STARTER, command_environment, in_terminal, run_command

from edge_mllm.cli.main import app

pytestmark = pytest.mark.xdist_group("models-command")


def test_help_lists_every_command():
    shown = run_command("--help")
    assert (shown.code, shown.stderr) == (0, "")
    sections = re.findall(r"^(\w+):\n((?:  .*\n)+)", shown.stdout, re.M)
    listed = [line.split()[0] for title, lines in sections[1:] for line in lines.splitlines()]
    assert [title for title, _ in sections] == ["Options", "Ask", "Models", "Measure"]
    assert sorted(listed) == sorted(typer.main.get_command(app).commands)
    assert "Measure:" in run_command().stdout + run_command().stderr


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_is_plain_and_as_wide_as_the_terminal(columns):
    code, shown = in_terminal("run", "--help", columns=columns)
    assert code == 0 and "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= columns
    for title in ("Model", "How it runs", "Answer", "Sampling", "Budget", "Output"):
        assert f"{title}:" in shown.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_where_the_shell_looks(tmp_path, shell):
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = run_command("--show-completion", shell, env=home)
    assert shown.code == 0 and "COMPLETE" in shown.stdout
    assert run_command("--install-completion", shell, env=home).code == 0
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("COMPLETE" in text or "completions" in text for text in written)


def test_bash_completes_commands_options_and_names():
    def completed(line):
        words = line.split(" ")
        asked = {"_EDGE_MLLM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        code = "from edge_mllm.cli.main import app; app(prog_name='edge-mllm')"
        environment = command_environment() | asked
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout.split()

    assert completed("edge-mllm ru") == ["run"]
    assert "--max-image-tokens" in completed("edge-mllm run --max-i")
    assert "smolvlm-500m" in completed("edge-mllm run -m smolvlm")
    assert {"onnx", "gguf"} <= set(completed("edge-mllm run --engine "))


@pytest.mark.parametrize("command", [(), ("run",), ("bench",), ("bench", "report"), ("export",)], ids=" ".join)
def test_help_has_a_short_name(command):
    short, long = run_command(*command, "-h"), run_command(*command, "--help")
    assert (short.code, short.stdout, short.stderr) == (0, long.stdout, "")


def test_version():
    done = run_command("--version")
    assert (done.code, done.stdout, done.stderr) == (0, version("edge-mllm") + "\n", "")


def test_verbose_logs_to_standard_error():
    question = ("run", "--max-new-tokens", 2, "--large-pages", "Hello")
    quiet, told = run_command(*question), run_command("--verbose", *question)
    assert told.stdout == quiet.stdout
    assert "edge_mllm." in told.stderr and "edge_mllm." not in quiet.stderr


def test_unknown_command():
    done = run_command("answer", STARTER)
    assert (done.code, done.stdout) == (2, "") and "No such command 'answer'" in done.stderr
