"""The sections of models.md about quantisation, from its result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.pages.tables import earlier_starter, interval, table


def quantisation(results: Path) -> str:
    """What the starter's 4-bit decoders lose, with every way of calibration, and what its bundles answer."""
    file = results / "quantisation.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    rows = [
        [
            recipe,
            way,
            f"{entry['bytes'] / 1e6:.2f}" if "bytes" in entry else "",
            f"{entry['kl']:.5f}",
            interval(entry.get("share_of_none"), "{:.2f}"),
        ]
        for recipe, ways in {**found["decoders"], "tower": found["vision"]}.items()
        for way, entry in ways.items()
    ]
    answered = [
        [name, f"{100 * entry['right']:.1f}", interval(entry.get("points"), "{:+.1f}")]
        for name, entry in found["answers"].items()
    ]
    first = table(["recipe", "way", "MB", "KL divergence", "share of none (95 % interval)"], rows)
    second = table(["bundle", "right (%)", "points against bf16 (95 % interval)"], answered)
    note = (
        f"The starter over {found['pages']} held-out pages: divergence from the checkpoint's own answers through the "
        f"picture at {found['positions']} positions, and exact answers; paired bootstrap; {found['date'][:10]}, commit "
        f"{found['machine']['commit']}. `ours` is what `edge-mllm export` does; `none` is plain "
        f"rounding, for the tower float32.{earlier_starter(source=found['checkpoint_sha256'])}"
    )
    shares = [ways["ours"]["share_of_none"]["value"] for ways in found["decoders"].values() if "ours" in ways]
    alone = [
        entry["share_of_none"]["value"]
        for ways in found["decoders"].values()
        for way, entry in ways.items()
        if way.startswith("imatrix")
    ]
    loss = (
        f"Calibration with pictures leaves {min(shares):.2f} to {max(shares):.2f} of the "
        "divergence of plain rounding at "
        f"the same size; an importance matrix alone leaves {min(alone):.2f} to {max(alone):.2f}."
    )
    return f"## What quantisation costs\n\n{loss}\n\n{first}\n\n{_answers_conclusion(found)}\n\n{second}\n\n{note}"


def _answers_conclusion(found: dict[str, Any]) -> str:
    points = {name: entry["points"] for name, entry in found["answers"].items() if entry.get("points")}
    beyond = [name for name, entry in points.items() if not entry["interval_95"][0] <= 0 <= entry["interval_95"][1]]
    if beyond:
        return f"Beyond chance, these answer otherwise than the checkpoint: {', '.join(beyond)}."
    worst = min(entry["value"] for entry in points.values())
    return (
        f"None of these bundles answers worse than the checkpoint beyond chance; the worst is at {worst:+.1f} points."
    )


def auto(results: Path) -> str:
    """What ``--quant auto`` chooses at the size of each fixed recipe."""
    file = results / "auto_quant.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    rows = [
        [
            f"{row['size'] / 1e6:.2f}",
            f"`{row['fixed']['name']}`",
            f"{row['fixed']['kl']:.5f}",
            "the same" if row["auto"]["name"] == row["fixed"]["name"] else f"`{row['auto']['name']}`",
            f"{row['auto']['kl']:.5f}",
            interval(row["difference"], "{:+.5f}"),
        ]
        for row in found["comparisons"]
    ]
    head = [
        "MB at most",
        "fixed recipe + tower",
        "KL divergence",
        "chosen",
        "KL divergence",
        "difference (95 % interval)",
    ]
    sweep = found["sweep"]
    note = (
        f"The starter, judged on {found['pages']} held-out pages; chosen on {sweep['prompts']} questions "
        f"({sweep['positions']} tokens) about pages that ship. The export took {sweep['export_seconds']:.0f} s with "
        f"everything that was measured, on {found['machine']['processor']['model']}, 2 threads; "
        f"{found['date'][:10]}, commit {found['machine']['commit']}."
        f"{earlier_starter(source=found['checkpoint_sha256'])}"
    )
    rows_of = found["comparisons"]
    conclusion = (
        f"At {sum(row['not_worse'] for row in rows_of)} of {len(rows_of)} sizes the choice is no worse than the fixed "
        f"recipe of that size, and at {sum(row['better'] for row in rows_of)} it is better "
        "beyond chance: use it to hold a size, "
        "not to gain accuracy."
    )
    return f"## What `--quant auto` chooses\n\n{conclusion}\n\n{table(head, rows)}\n\n{note}"


def calibration_cost(results: Path) -> str:
    """Seconds and memory of exports with calibration and without."""
    file = results / "calibration_cost.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    rows = [
        [name, way, f"{entry['seconds']:.0f}", f"{entry['peak_bytes'] / 2**30:.1f}", _longest(entry["steps"])]
        for name, ways in found["models"].items()
        for way, entry in ways.items()
    ]
    first = next(entry for ways in found["models"].values() for entry in ways.values())
    note = (
        f"Both engines, no verification, random weights of the true shape; {first['machine']['processor']['model']}, "
        f"2 threads; {first['date'][:10]}, commit {first['machine']['commit']}."
    )
    head = ["shape", "calibration", "export (s)", "peak memory (GiB)", "longest steps"]
    conclusion = (
        "Leave calibration on: it is one of the export's steps, and the whole export takes "
        f"{max(float(row[2]) for row in rows) / 60:.0f} minutes, once."
    )
    return f"## What calibration costs\n\n{conclusion}\n\n{table(head, rows)}\n\n{note}"


def _longest(steps: dict[str, Any]) -> str:
    most = sorted(steps.items(), key=lambda step: -step[1])[:3]
    return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in most)
