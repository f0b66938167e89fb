"""Pieces of Markdown for pages that are written from result files."""

from __future__ import annotations

from typing import Any


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
