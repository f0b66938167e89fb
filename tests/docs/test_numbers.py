"""The pages say what the families, the command line and the committed results say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer

from edge_mllm.cli import main

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = re.compile(r"<!--block options (\w+)-->")


def test_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pages.numbers", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_command_has_its_options_on_a_page() -> None:
    app: Any = typer.main.get_command(main.app)
    shown = {name for page in (ROOT / "docs").glob("*.md") for name in OPTIONS.findall(page.read_text("utf-8"))}
    assert shown == set(app.commands)
