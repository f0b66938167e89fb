"""What was said in a conversation, as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from edge_mllm.prompt.template import Message

_NAMES = {"user": "You", "assistant": "Model", "system": "System"}
PICTURE = "[picture]"


def transcript(messages: Sequence[Message]) -> str:
    """Each message after the name of who said it, an empty line between two; pictures as ``[picture]``."""
    return "".join(f"{_NAMES.get(str(each['role']), each['role'])}: {_text(each['content'])}\n\n" for each in messages)


def _text(content: object) -> str:
    if isinstance(content, str):
        return content.strip()
    parts = content if isinstance(content, list) else []
    shown = (PICTURE if part.get("type") == "image" else str(part.get("text", "")).strip() for part in parts)
    return " ".join(filter(None, shown))
