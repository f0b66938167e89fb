"""The messages that docs/troubleshooting.md explains are messages of this code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = re.findall(
    r"^- `(.+)`<br>$", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
)


@cache
def _texts() -> tuple[str, ...]:
    """Every text in the code that users run; what an f-string fills in is an ellipsis."""
    found = []
    for package in ("edge_mllm", "export/edge_mllm_export", "quant/edge_mllm_quant"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return tuple(found)


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 25


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_in_the_code(message: str) -> None:
    parts = [part.strip(" ;") for part in message.split("…")]
    pattern = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
    assert any(pattern.search(text) for text in _texts()), f"no message of the code reads: {message}"
