"""Write docs/terminal.svg: what the first commands print, from a real run of them.

Type ``python -m benchmarks.pages.recording`` on a machine that does nothing else.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "terminal.svg"
COMMANDS = (
    'edge-mllm run -i label.png "What does it say?"',
    'edge-mllm run -i sign.png "What is the number?"',
    'edge-mllm run -i label.png "What is the price?" --engine gguf',
)
WIDTH = 110
_UNNEEDED = re.compile(r" *@font-face \{.*?\}\n| *<!-- Generated.*?-->\n", re.DOTALL)


def recording() -> str:
    """The SVG of a terminal; it asks no other machine for fonts."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as scratch:
        for command in COMMANDS:
            answer, costs = _run(command, Path(scratch))
            console.print(Text("$ ", style="bold green") + Text(command, style="bold"))
            console.print(Text(answer))
            console.print(Text(costs, style="dim"))
            console.print()
    return _UNNEEDED.sub("", console.export_svg(title="edge-mllm", unique_id="edge-mllm"))


def _run(command: str, cache: Path) -> tuple[str, str]:
    """Standard output and standard error of a command of this checkout, asked twice so that files are in memory."""
    words = [sys.executable, "-m", *shlex.split(command.replace("edge-mllm", "edge_mllm", 1))]
    environment = {**os.environ, "EDGE_MLLM_CACHE": str(cache)}
    for _ in range(2):
        done = subprocess.run(
            words, cwd=ROOT / "starter" / "demo", env=environment, check=True, capture_output=True, text=True
        )
    return done.stdout.strip(), done.stderr.strip()


if __name__ == "__main__":
    PICTURE.write_text(recording(), encoding="utf-8")
