"""Results that came from devices, from benchmarks/results/devices."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pages.tables import table
from edge_mllm.measure.bench.result import Result, Run, read_result

_HEAD = [
    "device", "cores", "memory", "model", "engine", "threads", "picture", "visual tokens", "picture to first token",
    "second question", "decode", "peak memory", "other programs",
]  # fmt: skip


def devices(results: Path) -> str:
    """One row a run, by processor, model and engine."""
    found = [read_result(file) for file in sorted((results / "devices").glob("*.json"))]
    rows = [_row(result, run) for result in found for run in result.runs]
    kinds = len({result.machine.id for result in found})
    note = f"Files: {len(found)}; kinds of machine: {kinds}. Medians of at least three answers."
    return f"{table(_HEAD, sorted(rows))}\n\n{note}"


def _row(result: Result, run: Run) -> list[str]:
    machine, medians = result.machine, {name: found.median for name, found in run.summary().items()}
    second = medians.get("second_ttft")
    peak = run.memory.peak_bytes
    return [
        machine.processor.model or machine.processor.architecture,
        str(machine.processor.usable_cores),
        f"{machine.memory_bytes / 1e9:.0f} GB",
        f"{run.model.name}{', random weights' if run.model.random_weights else ''}",
        run.engine,
        str(run.threads),
        f"{run.case.image_width}x{run.case.image_height}" if run.case.images else "none",
        str(run.counts.visual_tokens),
        f"{medians['ttft']:.2f} s",
        "" if second is None else f"{second:.2f} s",
        f"{medians['decode_tps']:.0f} tokens/s",
        "" if peak is None else f"{peak / 1e6:.0f} MB",
        "" if run.other_cores is None else f"{run.other_cores:.1f} cores",
    ]
