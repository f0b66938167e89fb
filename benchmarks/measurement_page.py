"""What measurements say of `plan` and of growth, for models.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.page_tables import table


def plan_error(results: Path) -> str:
    """What `plan` told beside what was measured, for models that its profile was not fitted on."""
    file = results / "plan_error.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    head = ["model", "engine", "picture", "first token: told / was (s)", "off", "decode: told / was (tokens/s)", "off"]
    rows = [_plan_row(row) for row in found["errors"]]
    exact = "exact" if found["bytes_exact"] else "not exact"
    note = (
        f"Profile fitted on {', '.join(found['fitted_on'])}, {found['threads']} threads of "
        f"{found['machine']['processor']['model']}, {found['created'][:10]}, commit {found['machine']['commit']}, "
        f"medians of {found['repeat']}. Bytes of tower and decoder are {exact}. `int8 prompt`: with prompt weights."
    )
    return f"## What plan tells and what was measured\n\n{table(head, rows)}\n\n{note}"


def _plan_row(row: dict[str, Any]) -> list[str]:
    cells = [row["model"], row["engine"] + (", int8 prompt" if row["prompt_weights"] else ""), row["picture"]]
    for key in ("ttft_s", "decode_tps"):
        numbers = row[key]
        cells += [f"{numbers['told']:.2f} / {numbers['was']:.2f}", f"{100 * numbers['error']:+.1f} %"]
    return cells


def scaling(results: Path) -> str:
    """How time and memory grow, a row for every point of every grid."""
    file = results / "scaling.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    head = ["grows", "model", "", "tower (s)", "prefill (s)", "first token (s)", "decode (tokens/s)", "peak (MB)"]
    rows = [
        [grid["axis"] if number == 0 else "", *_point(point)]
        for grid in found["grids"].values()
        for number, point in enumerate(grid["points"])
    ]
    processor = found["machine"]["processor"]["model"]
    note = (
        f"Engine {found['engine']}, {found['threads']} threads of {processor}, {found['created'][:10]}, commit "
        f"{found['machine']['commit']}. Random weights; mostly one answer a point (`benchmarks/scaling.py`)."
    )
    return f"## How it grows\n\n![seconds and memory](benchmarks/results/scaling.svg)\n\n{table(head, rows)}\n\n{note}"


def _point(point: dict[str, Any]) -> list[str]:
    seconds = [f"{point[stage]:.2f}" if stage in point else "" for stage in ("vision", "prefill", "ttft")]
    speed, peak = f"{point['decode_tps']:.1f}", f"{(point['peak_bytes'] or 0) / 1e6:.0f}"
    return [point["model"], f"{point['x']:.0f}", *seconds, speed, peak]
