"""The programs that made the committed results can still be started."""

from __future__ import annotations

import subprocess
import sys

from page_blocks import ROOT

IMPORT_ALL = """
import importlib, sys
sys.path.insert(0, "benchmarks")  # as the interpreter does for a program there
for name in sys.argv[1:]:
    importlib.import_module(f"benchmarks.{name}")
"""


def test_every_benchmark_can_be_imported() -> None:
    """In a process of its own: some of them put folders on the search path."""
    names = sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py"))
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(names) > 40
