"""A picture of where the time went: one bar per run, one colour per stage."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from edge_mllm.errors import ExtraMissingError, SettingError
from edge_mllm.measure.bench.report import caption
from edge_mllm.measure.bench.result import STAGES, Result, Run

_COLOURS = ("#9e9e9e", "#607d8b", "#1e88e5", "#8e24aa", "#43a047", "#ffb300")
_LABELS = ("picture decode", "tiling", "tower", "prefill", "decode", "rest")


def plot_stages(results: Sequence[Result], file: Path) -> None:
    """Draw the medians of all stages, up to the last token.

    Args:
        results: at least one.
        file: where to; the suffix decides the format.

    Raises:
        SettingError: the suffix is neither .png, .svg nor .pdf.
        ExtraMissingError: matplotlib is not installed.
    """
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise SettingError(f"a plot is written as .png, .svg or .pdf, not as '{file.name}'")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ExtraMissingError("bench", "matplotlib") from error
    runs = [run for result in results for run in result.runs]
    figure = Figure(figsize=(10, 1.8 + 0.55 * len(runs)), layout="constrained")
    axes = figure.add_subplot()
    left = [0.0] * len(runs)
    for label, colour, widths in zip(_LABELS, _COLOURS, zip(*map(_medians, runs), strict=True), strict=True):
        axes.barh(range(len(runs)), widths, left=left, color=colour, label=label, height=0.6)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(runs)), [_name(run) for run in runs])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.legend(ncols=len(_LABELS), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize="small")
    figure.text(0.01, -0.02, "\n".join(dict.fromkeys(map(caption, results))), fontsize=5, va="top", wrap=True)
    figure.savefig(file, dpi=150, bbox_inches="tight")


def _medians(run: Run) -> tuple[float, ...]:
    """Medians of the stages, and of what each single answer had left over (medians do not add up, answers do)."""
    summary = run.summary()
    rest = statistics.median(sample.residual * sample.end_to_end for sample in run.samples)
    return (*(summary[name].median for name in STAGES), max(0.0, rest))


def _name(run: Run) -> str:
    case = run.case
    picture = f"{case.images}x {case.image_width}x{case.image_height}" if case.images else "no picture"
    return f"{run.model.name}\n{run.engine}, {run.threads} threads, {picture}"
