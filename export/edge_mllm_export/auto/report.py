"""What a sweep found, kept with the bundle: numbers as JSON, a table for people, size against loss as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mllm_export.auto.choice import Measured
    from edge_mllm_export.auto.sweep import Sweep

JSON_FILE, TABLE_FILE, PLOT_FILE = "quantisation.json", "quantisation.md", "quantisation.svg"
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _ROOM = 720, 420, 80, 50, 30
_COLOURS = {"gguf": "#1f6fb2", "onnx": "#b2531f", "vision": "#4a8a3a"}
_LEAST = 1e-6
"""Nats; smaller losses are drawn here."""


@dataclass(frozen=True)
class Limits:
    """What was asked for."""

    max_size: int | None
    """Bytes of a decoder and the tower."""
    max_loss: float | None
    """Nats per token."""


def write_sweep(found: Sweep, limits: Limits, directory: Path) -> None:
    """Write the three files."""
    document = {
        "prompts": found.prompts,
        "positions": found.positions,
        "limits": {"max_size": limits.max_size, "max_loss": limits.max_loss},
        "chosen": {component: item.row for component, item in found.chosen.items()},
        "measured": [item.row for item in found.measured],
        "parts": list(found.parts),
    }
    (directory / JSON_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (directory / TABLE_FILE).write_text(table(found), encoding="utf-8")
    (directory / PLOT_FILE).write_text(plot(found.measured, [*found.chosen.values()]), encoding="utf-8")


def table(found: Sweep) -> str:
    """Markdown."""
    lines = [
        f"# Size and loss, measured on {found.positions} tokens of {found.prompts} prompts with pictures",
        "",
        "Loss: mean KL divergence from the checkpoint in nats per token; a tower's is what it adds.",
        "",
        "| part | stored as | MB | loss | chosen |",
        "|---|---|---:|---:|---|",
    ]
    chosen = [*found.chosen.values()]
    for item in sorted(found.measured, key=lambda item: (item.component, item.bytes)):
        mark = "yes" if item in chosen else ""
        lines.append(f"| {item.component} | `{item.label}` | {item.bytes / 1e6:.2f} | {item.loss:.5f} | {mark} |")
    if found.parts:
        lines += ["", "Parts of the GGUF decoder alone, the others in 8 bits:", ""]
        lines += ["| part | type | MB | loss |", "|---|---|---:|---:|"]
        lines += [
            f"| {row['part']} | {row['type']} | {row['bytes'] / 1e6:.2f} | {row['loss']:.5f} |" for row in found.parts
        ]
    return "\n".join(lines) + "\n"


def plot(measured: Sequence[Measured], chosen: Sequence[Measured]) -> str:
    """An SVG: bytes to the right, loss upwards on a logarithmic scale, the chosen ones filled."""
    largest = max(item.bytes for item in measured)
    losses = [log10(max(item.loss, _LEAST)) for item in measured]
    low, high = min(losses), max(max(losses), min(losses) + 1)

    def place(item: Measured) -> tuple[float, float]:
        right = _LEFT + (_WIDTH - _LEFT - _ROOM) * item.bytes / largest
        share = (log10(max(item.loss, _LEAST)) - low) / (high - low)
        return right, _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _ROOM) * share

    marks = []
    for item in measured:
        x, y = place(item)
        colour = _COLOURS[item.component]
        fill = colour if item in chosen else "none"
        title = escape(f"{item.component} {item.label}: {item.bytes / 1e6:.2f} MB, loss {item.loss:.5f}")
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{fill}" stroke="{colour}" stroke-width="2">'
            f"<title>{title}</title></circle>"
            f'<text x="{x + 9:.1f}" y="{y + 4:.1f}" fill="{colour}">{escape(item.recipe.name)}</text>'
        )
    floor, top = _HEIGHT - _BOTTOM, _ROOM
    axes = (
        f'<path d="M{_LEFT} {top}V{floor}H{_WIDTH - _ROOM}" fill="none" stroke="#444"/>'
        f'<text x="{_WIDTH - _ROOM}" y="{floor + 30}" text-anchor="end">{largest / 1e6:.1f} MB</text>'
        f'<text x="{_LEFT}" y="{floor + 30}">0</text>'
        f'<text x="{_LEFT - 8}" y="{floor}" text-anchor="end">{10**low:.1g}</text>'
        f'<text x="{_LEFT - 8}" y="{top + 10}" text-anchor="end">{10**high:.1g}</text>'
        f'<text x="{_LEFT}" y="{top - 12}">loss, nats per token; filled: chosen</text>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
    return f'{head} font-size="12"><rect width="100%" height="100%" fill="#fff"/>{axes}{"".join(marks)}</svg>\n'
