"""Results as tables: one line (or column) per run, medians with their spread, and ratios of pairs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from edge_mllm.machine.others import competes
from edge_mllm.measure.bench.result import Result, Run, shares
from edge_mllm.measure.bench.stats import Summary

_MIB = 1 << 20
_FEW = 4
"""Up to this many runs stand side by side; more become one line each."""


@dataclass(frozen=True)
class Sheet:
    """A table of texts; the first column names the lines."""

    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def run_sheet(results: Sequence[Result]) -> Sheet:
    """All runs of all results: side by side when they are few, else one line each."""
    runs = [(result, run) for result in results for run in result.runs]
    columns = [_cells(result, run) for result, run in runs]
    names = [name for name in columns[0] if any(column.get(name, "") for column in columns)]
    if len(columns) <= _FEW:
        lines = tuple((name, *(column[name] for column in columns)) for name in names[1:])
        return Sheet((names[0], *(column[names[0]] for column in columns)), lines)
    return Sheet(tuple(names), tuple(tuple(column[name] for name in names) for column in columns))


def ratio_sheets(result: Result) -> list[Sheet]:
    """One table per comparison: medians, their ratio, its interval."""
    sheets = []
    for comparison in result.comparisons:
        a, b = result.runs[comparison.a], result.runs[comparison.b]
        left, right = a.summary(), b.summary()
        lines = [
            (
                name,
                f"{left[name].median:.4g}",
                f"{right[name].median:.4g}",
                f"{ratio.ratio:.3f}",
                f"{ratio.low:.3f} - {ratio.high:.3f}" if ratio.n > 1 else "one pair",
                _verdict(ratio.low, ratio.high, name) if ratio.n > 1 else "",
            )
            for name, ratio in comparison.ratios.items()
        ]
        for name, x, y in _sizes(a, b):
            lines.append((name, f"{x / _MIB:.1f}", f"{y / _MIB:.1f}", f"{y / x:.3f}", "", ""))
        sheets.append(Sheet(("b / a", _label(a), _label(b), "ratio", "95 % interval", ""), tuple(lines)))
    return sheets


def to_markdown(sheet: Sheet) -> str:
    """A GitHub-flavoured table."""
    rows = [sheet.header, tuple("---" for _ in sheet.header), *sheet.lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"


def to_csv(results: Sequence[Result]) -> str:
    """One line per run: case, counts, and median and quartiles of every metric in base units (seconds, bytes)."""
    rows = [_flat(result, run) for result in results for run in result.runs]
    fields = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def caption(result: Result) -> str:
    """Machine, software and date in one line; numbers mean nothing without it."""
    machine = result.machine
    commit = f", commit {machine.commit}" if machine.commit else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    peaks = machine.peaks
    limits = (
        f"; read {peaks.read_bytes_per_s / 1e9:.1f} GB/s, int8 {peaks.int8_ops_per_s / 1e9:.0f} and float32 "
        f"{peaks.float32_ops_per_s / 1e9:.0f} Gop/s with {peaks.threads} threads"
        if peaks
        else ""
    )
    hardware = f"{machine.processor.model}, {machine.processor.physical_cores} cores"
    python = f"Python {machine.python}, " if machine.python else ""
    software = f"{machine.system}, {python}{versions}{commit}"
    memory = f"{machine.memory_bytes / (1 << 30):.1f} GiB"
    repeats = f"medians of {result.repeat} after {result.warmup} warm-ups"
    return f"{hardware}, {memory} ({machine.id}){limits}; {software}; {result.created}; {repeats}"


def _cells(result: Result, run: Run) -> dict[str, str]:
    case, summary = run.case, run.summary()
    picture = f"{case.images}x {case.image_width}x{case.image_height}" if case.images else "none"
    picture += f" {case.reduction}" if case.reduction else ""
    cells = {
        "model": run.model.name,
        "engine": run.engine,
        "threads": str(run.threads),
        "pictures": picture,
        "tiles": str(run.counts.tiles),
        "visual tokens": str(run.counts.visual_tokens),
        "prompt tokens": str(run.counts.prompt_tokens),
        "answer tokens": str(run.counts.completion_tokens),
    }
    cells |= {name: _seconds(summary, key) for name, key in _TIMES.items()}
    cells["prefill tokens/s"] = _rate(summary["prefill_tps"])
    cells["decode tokens/s"] = _rate(summary["decode_tps"])
    cells["residual"] = f"{100 * summary['residual'].median:.1f} %"
    cells |= _memory_cells(run) | _energy_cells(summary) | _limit_cells(result, run)
    throttled = sorted({flag for sample in run.samples for flag in sample.throttled})
    cells["throttled"] = "; ".join(throttled)
    cells["other programs"] = f"{run.other_cores or 0:.1f} cores" if competes(run.other_cores) else ""
    vision = run.devices.get("vision")
    cells["tower on"] = vision.device if vision is not None and vision.provider == "qnn" else ""
    cells["weights"] = "random" if run.model.random_weights else ""
    return cells


_TIMES = {
    "load, cold": "load_cold",
    "load, warm": "load_warm",
    "picture decode": "image_decode",
    "tiling": "tiling",
    "tower per tile": "vision_per_tile",
    "tower": "vision",
    "prefill": "prefill",
    "first token": "ttft",
    "second question": "second_ttft",
    "decode": "decode",
    "end to end": "end_to_end",
}


def _memory_cells(run: Run) -> dict[str, str]:
    memory, disk = run.memory, run.model.bytes_on_disk
    steady = f"{memory.steady.rss / _MIB:.0f} MiB"
    if memory.steady.anonymous is not None and memory.steady.file is not None:
        own, mapped = memory.steady.anonymous / _MIB, memory.steady.file / _MIB
        steady += f" ({own:.0f} own, {mapped:.0f} mapped)"
    return {
        "memory, peak": f"{memory.peak_bytes / _MIB:.0f} MiB" if memory.peak_bytes else "",
        "memory, steady": steady,
        "on disk": f"{disk / _MIB:.1f} MiB",
    }


def _energy_cells(summary: dict[str, Summary]) -> dict[str, str]:
    joules = [f"{s.median:.2f} J {name.partition('/')[2]}" for name, s in summary.items() if name.startswith("joules/")]
    return {"energy per answer": "; ".join(joules)}


def _limit_cells(result: Result, run: Run) -> dict[str, str]:
    found = shares(run, result.machine.peaks)
    bandwidth, tower = found.decode_of_bandwidth, found.tower_of_int8
    precision = run.model.parts.get("vision", "")
    if not precision.startswith("int"):
        tower = found.tower_of_float32
    return {
        "share of bandwidth": "" if bandwidth is None else f"{100 * bandwidth:.0f} % in decode",
        "share of peak": "" if tower is None else f"{100 * tower:.0f} % in the tower",
    }


def _seconds(summary: dict[str, Summary], name: str) -> str:
    if name not in summary:
        return ""
    found = summary[name]
    scale, unit = (1000, "ms") if found.median < 1 else (1, "s")
    spread = f" ±{100 * found.spread / 2:.0f}%" if found.n > 1 and found.median else ""
    return f"{found.median * scale:.3g} {unit}{spread}"


def _rate(found: Summary) -> str:
    spread = f" ±{100 * found.spread / 2:.0f}%" if found.n > 1 and found.median else ""
    return f"{found.median:.1f}{spread}"


def _verdict(low: float, high: float, name: str) -> str:
    """In words which is better; more is better for rates only."""
    if low <= 1 <= high:
        return "no difference seen"
    b_wins = (low > 1) == name.endswith("_tps")
    return "b is better" if b_wins else "a is better"


def _sizes(a: Run, b: Run) -> list[tuple[str, int, int]]:
    sizes = [
        ("steady MiB", a.memory.steady.rss, b.memory.steady.rss),
        ("disk MiB", a.model.bytes_on_disk, b.model.bytes_on_disk),
    ]
    if a.memory.peak_bytes and b.memory.peak_bytes:
        sizes.insert(0, ("peak MiB", a.memory.peak_bytes, b.memory.peak_bytes))
    return sizes


def _label(run: Run) -> str:
    return f"{run.model.name} {run.engine}"


def _flat(result: Result, run: Run) -> dict[str, str | int | float | None]:
    case = run.case
    row: dict[str, str | int | float | None] = {
        "created": result.created,
        "machine": result.machine.id,
        "processor": result.machine.processor.model,
        "commit": result.machine.commit,
        "model": run.model.name,
        "model_sha256": run.model.sha256,
        "engine": run.engine,
        "threads": run.threads,
        "images": case.images,
        "image_width": case.image_width,
        "image_height": case.image_height,
        "tiles": run.counts.tiles,
        "visual_tokens": run.counts.visual_tokens,
        "prompt_tokens": run.counts.prompt_tokens,
        "answer_tokens": run.counts.completion_tokens,
        "peak_rss_bytes": run.memory.peak_bytes,
        "steady_rss_bytes": run.memory.steady.rss,
        "steady_anonymous_bytes": run.memory.steady.anonymous,
        "bytes_on_disk": run.model.bytes_on_disk,
    }
    for name, found in run.summary().items():
        row |= {name: found.median, f"{name}_q1": found.q1, f"{name}_q3": found.q3}
    return row
