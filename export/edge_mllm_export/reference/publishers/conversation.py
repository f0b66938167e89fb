"""Messages as the conversations of LLaVA's and InternVL's code take them: roles and plain texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

IMAGE = "<image>"
"""What both write for a picture, on a line of its own before the question."""


def turns(messages: Sequence[Mapping[str, Any]]) -> tuple[str | None, list[tuple[str, str]]]:
    """The system message, None where there is none, and the other messages with :data:`IMAGE` for pictures."""
    said = [(str(message["role"]), _text(message["content"])) for message in messages]
    if said and said[0][0] == "system":
        return said[0][1], said[1:]
    return None, said


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(f"{IMAGE}\n" if item["type"] == "image" else str(item["text"]) for item in content)
