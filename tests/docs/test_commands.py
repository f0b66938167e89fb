"""What the pages tell a reader to type works: it is run here, and what cannot be run here is read by the command line.

Each page has a directory of its own with the pictures of ``starter/demo`` and the starter as ``smolvlm-500m.edge``, so
that the commands of a page see the files of the ones before. What is not run is marked in the page with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from page_blocks import PAGES, ROOT, Block, blocks, commands

from edge_mllm.cli.main import app

LANGUAGES = ("sh", "python", "json", "text")
NOT_RUN = [block for page in PAGES for block in blocks(page) if block.reason is not None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reader's directory."""
    for picture in (ROOT / "starter" / "demo").glob("*.png"):
        shutil.copy(picture, tmp_path)
    (tmp_path / "smolvlm-500m.edge").symlink_to(ROOT / "edge_mllm" / "starter.edge")
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "edge-mllm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m edge_mllm "$@"\n')
    program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_a_page_run(page: Path, folder: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.where}: a block of an unknown kind, '{block.language}'"
        if block.title is not None:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language in ("sh", "python") and block.reason is None:
            _run(block, folder)


def _run(block: Block, folder: Path) -> None:
    words = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    done = subprocess.run(
        [*words, block.text],
        cwd=folder,
        env={**os.environ, **_environment(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{block.where}\n{block.text}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip(), f"{block.where}: nothing was printed"


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "export", "quant")),
        "HOME": str(folder),
        "EDGE_MLLM_CACHE": str(folder / "cache"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: f"{block.where} {block.reason}")
def test_what_is_not_run_is_read(block: Block) -> None:
    """Every option of such a command exists, every make target, extra and script too."""
    assert block.language in ("sh", "python") and block.reason
    if block.language == "python":
        compile(block.text, block.where, "exec")
        return
    for words in commands(block):
        _read(block, words)


def _read(block: Block, words: list[str]) -> None:
    program = words[0].rsplit("/", 1)[-1]
    if program == "edge-mllm":
        _parse(words[1:])
    elif program == "make":
        targets = re.findall(r"^([a-z][a-z0-9 -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        wanted = next(word for word in words[1:] if "=" not in word)
        assert wanted in " ".join(targets).split(), f"{block.where}: make has no target '{wanted}'"
    elif program.startswith("python") and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), f"{block.where}: there is no {words[1]}"
    for extra in re.findall(r"\[([a-z,]+)\]", " ".join(words)) if program == "pip" else ():
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(extra.split(",")) <= set(known), f"{block.where}: no such extra: {extra}"


def _parse(words: list[str]) -> None:
    """Let the command line read a command without doing it; an unknown option is an error."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("edge-mllm", list(words))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(name, rest, parent=context)


def test_reasons_are_few_and_plain() -> None:
    """Blocks that are not run say so for a reason that this list knows; the list is what a reviewer reads."""
    reasons = {
        "needs the net",
        "needs a board",
        "needs a cluster",
        "needs OpenVINO",
        "needs a GGUF file",
        "needs a published directory",
        "needs packages that are not part of this project",
        "asks a server, as tests/serve/test_docs_page.py does",
        "takes minutes",
        "installs the project into a new environment",
        "writes golden files, takes minutes",
        "measures for a long time on a machine that does nothing else",
    }
    assert {block.reason for block in NOT_RUN} == reasons


def test_every_environment_variable_is_in_the_table() -> None:
    table = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    package = ROOT / "edge_mllm"
    sources = "\n".join(path.read_text("utf-8") for path in package.rglob("*.py"))
    read = set(re.findall(r"""environ(?:\.get|\.setdefault)?[(\[]\s*["'](\w+)["']""", sources))
    read |= set(re.findall(r"\bEDGE_MLLM_[A-Z_]+\b", sources))
    assert len(read) > 4
    assert [name for name in sorted(read) if f"`{name}`" not in table] == []
