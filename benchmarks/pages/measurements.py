"""What measurements say of `plan` and of growth, for models.md."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.pages.tables import table


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
    conclusion = (
        f"{_off(found, 'ttft_s', 'First tokens')}, {_off(found, 'decode_tps', 'decoding')}: enough to choose by."
    )
    return f"## What plan tells and what was measured\n\n{conclusion}\n\n{table(head, rows)}\n\n{note}"


def _off(found: dict[str, Any], key: str, what: str) -> str:
    errors = [100 * abs(row[key]["error"]) for row in found["errors"]]
    return f"{what} are told {median(errors):.0f} % off in the middle and {max(errors):.0f} % at worst".replace(
        "decoding are", "decoding is"
    )


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
    picture = "![seconds and memory](benchmarks/results/scaling.svg)"
    return f"## How it grows\n\n{_growth(found)}\n\n{picture}\n\n{table(head, rows)}\n\n{note}"


def _growth(found: dict[str, Any]) -> str:
    """How much more the last point of the first grid takes than its first one."""
    points = next(iter(found["grids"].values()))["points"]
    first, last = points[0], points[-1]
    times = {key: last[key] / first[key] for key in ("x", "vision", "prefill")}
    return (
        f"With {times['x']:.0f} times the visual tokens the tower takes {times['vision']:.0f} "
        "times as long, because its "
        f"attention grows with the square, and prefill {times['prefill']:.0f} times: smaller "
        "pictures are the first thing "
        "to try."
    )


def _point(point: dict[str, Any]) -> list[str]:
    seconds = [f"{point[stage]:.2f}" if stage in point else "" for stage in ("vision", "prefill", "ttft")]
    speed, peak = f"{point['decode_tps']:.1f}", f"{(point['peak_bytes'] or 0) / 1e6:.0f}"
    return [point["model"], f"{point['x']:.0f}", *seconds, speed, peak]
