"""Every option of every command occurs in the end-to-end module of its command, in each of its forms.

The module of ``edge-mllm run`` is test_run.py (and test_run_*.py where there are several), that of ``edge-mllm`` itself
test_edge_mllm.py. A form occurs where it is a string by itself (``"--engine"``), has its value with it
(``"--engine=onnx"``), or is a word of a string that is split (``"--engine onnx".split()``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from commands.command_line import run_command

from edge_mllm.cli.main import app

HERE = Path(__file__).parent
ITSELF = "edge_mllm"


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The group and every command under it, with the words that are typed for it."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def forms(command: Any) -> set[str]:
    """What can be typed for its options; help, which every command has, is looked at here."""
    options = (param for param in command.params if param.param_type_name == "option")
    return {form for option in options for form in (*option.opts, *option.secondary_opts)} - {"--help"}


def typed(source: str) -> set[str]:
    """Words that a test's source hands to a command; what docstrings and comments say does not count."""
    tree = ast.parse(source)
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            found |= {node.value, node.value.partition("=")[0]}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "split":
            text = node.func.value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found |= {word.partition("=")[0] for word in text.value.split()}
    return found


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or ITSELF)
def test_options_occur_in_the_end_to_end_module(path):
    name = path[0] if path else ITSELF
    modules = [HERE / f"test_{name}.py", *sorted(HERE.glob(f"test_{name}_*.py"))]
    words: set[str] = set().union(*(typed(module.read_text("utf-8")) for module in modules if module.is_file()))
    assert words, f"no test_{name}.py"
    assert not {*path, *forms(ALL[path])} - {name} - words


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or ITSELF)
def test_help_shows_every_option(path):
    shown = run_command(*path, "--help")
    assert (shown.code, shown.stderr) == (0, "")
    words = set(shown.stdout.replace(",", " ").replace("/", " ").split())
    assert not forms(ALL[path]) - words


def test_what_is_only_talked_about_does_not_occur():
    source = (
        '"""Of --engine."""\n# --threads\nrun("--image", "--seed=1", "it has --stop")\nask("-i a --json".split())\n'
    )
    words = typed(source)
    assert {"--image", "--seed", "-i", "--json"} <= words
    assert not {"--engine", "--threads", "--stop"} & words


def test_commands_have_options():
    assert ("bench", "report") in ALL
    assert {"-m", "--model", "--no-prompt-weights", "-i"} <= forms(ALL["run",])
    assert {"--verbose", "--version", "--install-completion", "--show-completion"} == forms(ALL[()])
