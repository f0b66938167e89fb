"""Pieces of Markdown for pages that are written from result files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parents[2] / "edge_mllm" / "starter.edge" / "bundle.json"


def interval(measured: dict[str, Any] | None, form: str) -> str:
    """A value with its interval."""
    if measured is None:
        return ""
    low, high = measured["interval_95"]
    return f"{form.format(measured['value'])} ({form.format(low)} to {form.format(high)})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def earlier_starter(*, source: str | None = None, bundle: str | None = None) -> str:
    """A sentence where a result is of another starter than the one that ships.

    Args:
        source: SHA-256 of the checkpoint, as bundle.json has it.
        bundle: SHA-256 of bundle.json.
    """
    text = SHIPPED.read_bytes()
    shipped = (json.loads(text)["source"]["sha256"], hashlib.sha256(text).hexdigest())
    if source == shipped[0] or bundle == shipped[1]:
        return ""
    what, found = ("checkpoint", source) if source is not None else ("bundle", bundle)
    return f" The {what} was an earlier one than the starter's that ships now ({str(found)[:12]})."
