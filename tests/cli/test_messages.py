"""Errors of the library name its arguments; the command line shows them as they are typed there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer

from edge_mllm.cli.main import app
from edge_mllm.cli.terminal.errors import OTHER_NAMES, as_typed

ROOT = Path(__file__).parents[2]
FOLDERS = ("edge_mllm", "export/edge_mllm_export", "quant/edge_mllm_quant")
_OTHERS = "short|porcelain|untracked-files|extra_options|quiet|disable-pip-version-check|no-deps"
FOREIGN = re.compile(rf"pip install|^--({_OTHERS})\b|edge-mllm \w+ --")
"""Options of other programs, and whole commands to type."""


def texts() -> list[tuple[str, str]]:
    """File and text of every string of the library, docstrings apart; what is filled in is an ellipsis."""
    found = []
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if file.is_relative_to(ROOT / "edge_mllm" / "cli"):
                continue
            tree = ast.parse(file.read_text("utf-8"))
            told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    told |= {id(part) for part in node.values}
                    text = "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    found.append((file.name, text))
            found += [
                (file.name, node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told
            ]
    return found


TEXTS = texts()


def options() -> set[str]:
    """Every long option of every command, as its argument is called."""
    commands, found = [typer.main.get_command(app)], set()
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        forms = (form for param in command.params for form in (*param.opts, *param.secondary_opts))
        found |= {form.removeprefix("--").replace("-", "_") for form in forms if form.startswith("--")}
    return found


def test_no_message_of_the_library_names_an_option_of_the_command_line():
    named = [(file, text) for file, text in TEXTS if re.search(r"(^|[ '(])--[a-z]", text) and not FOREIGN.search(text)]
    assert not named


def test_every_argument_that_a_message_names_is_an_option():
    arguments = {name for _, text in TEXTS for name in re.findall(r"`([a-z]\w*)(?:=[^`]*)?`", text)}
    assert len(arguments) > 10
    assert not {OTHER_NAMES.get(name, name) for name in arguments} - options()


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("try `low_memory`", "try --low-memory"),
        ("use `detail='low'` here", "use --detail low here"),
        ("leave `verify=False` out", "leave --no-verify out"),
        ("`force=True`", "--force"),
        ("leave `overrides` out", "leave --override out"),
        ("type `pip install x`, no --flag", "type `pip install x`, no --flag"),
    ],
)
def test_as_typed(message, shown):
    assert as_typed(message) == shown
