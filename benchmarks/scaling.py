"""How time and memory grow: with visual tokens, answer length, context, pictures, and the size of the model.

    python benchmarks/scaling.py                    # about 40 minutes on 2 cores
    python benchmarks/scaling.py --only pictures    # one grid

Every point is a bench case in a process of its own, on a shape with random weights. Results go to
benchmarks/results/scaling.json, one entry a grid (entries of other grids stay), and a plot beside it, PNG and SVG.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_mllm.bench.cases import Grid
from edge_mllm.bench.fingerprint import fingerprint
from edge_mllm.bench.measure import Plan, run_grid
from edge_mllm.bench.result import Run

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "plan"
RESULTS = ROOT / "benchmarks" / "results"
SHAPES = ("smolvlm-256m", "smolvlm-500m", "internvl3-1b", "qwen2-vl-2b", "smolvlm-2.2b")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One grid and what its axis is."""

    label: str
    axis: Callable[[Run], float]
    grid: dict[str, Any]
    shapes: tuple[str, ...] = ("smolvlm-500m",)


def _parameters(run: Run) -> float:
    """Bytes on disk of the decoder and tower that ran, in MB: what grows with the model."""
    return run.model.bytes_on_disk / 1e6


SWEEPS = {
    "visual_tokens": Sweep(
        "visual tokens",
        lambda run: run.counts.visual_tokens,
        {"image_sizes": ((512, 64), (512, 256), (1024, 512), (1024, 768), (1024, 1024)), "answer_tokens": (16,)},
    ),
    "pictures": Sweep(
        "pictures of 832 visual tokens",
        lambda run: run.case.images,
        {"images": (1, 2, 3, 4, 8), "answer_tokens": (16,)},
    ),
    "answer_length": Sweep(
        "tokens of the answer",
        lambda run: run.counts.completion_tokens,
        {"images": (0,), "answer_tokens": (16, 64, 256, 1000)},
    ),
    "context": Sweep(
        "tokens of the prompt",
        lambda run: run.counts.prompt_tokens,
        {"images": (0,), "prompt_tokens": (64, 512, 2048, 4096, 8000), "answer_tokens": (16,)},
    ),
    "model_size": Sweep("MB on disk", _parameters, {"answer_tokens": (32,)}, SHAPES),
}


def main() -> None:
    """Measure the grids that are asked for, write and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SWEEPS), action="append")
    parser.add_argument("--engine", default="gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--bundle", type=Path, help="measure this bundle instead of shapes (for a try)")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    given = parser.parse_args()
    known = json.loads(given.out.read_text()) if given.out.exists() else {"grids": {}}
    for name in given.only or list(SWEEPS):
        known["grids"][name] = measure(SWEEPS[name], given)
        known |= {
            "schema": "edge-mllm-scaling/1",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "engine": given.engine,
            "threads": given.threads,
            "repeat": given.repeat,
            "machine": dataclasses.asdict(fingerprint(peaks=False)),
        }
        given.out.write_text(json.dumps(known, indent=1) + "\n")
    for suffix in (".png", ".svg"):
        plot(known, given.out.with_suffix(suffix))


def measure(sweep: Sweep, given: argparse.Namespace) -> dict[str, Any]:
    """Every point of a grid, in the order of its axis."""
    bundles = [given.bundle] if given.bundle else [bundle_of(shape) for shape in sweep.shapes]
    grid = Grid(
        models=[str(bundle) for bundle in bundles], engines=(given.engine,), threads=(given.threads,), **sweep.grid
    )
    plan = Plan(repeat=given.repeat, loads=1, second=False, peaks=False)
    points = [_point(sweep, run) for run in run_grid(grid.cases(), plan, print).runs]
    return {"axis": sweep.label, "points": sorted(points, key=lambda point: point["x"])}


def bundle_of(shape: str) -> Path:
    """Export a shape, once."""
    from edge_mllm_export import ExportOptions, export_bundle

    BUILD.mkdir(parents=True, exist_ok=True)
    bundle = BUILD / f"{shape}.edge"
    if not bundle.exists():
        export_bundle(f"shape:{shape}", bundle, ExportOptions(verify=False, calibration=False), print)
    return bundle


def _point(sweep: Sweep, run: Run) -> dict[str, Any]:
    summary = run.summary()
    names = ("ttft", "vision", "prefill", "decode", "end_to_end", "prefill_tps", "decode_tps")
    return {
        "x": sweep.axis(run),
        "model": run.model.name,
        **dataclasses.asdict(run.counts),
        **{name: summary[name].median for name in names if name in summary},
        "spread_ttft": summary["ttft"].spread,
        "peak_bytes": run.memory.peak_bytes,
        "steady_anonymous_bytes": run.memory.steady.anonymous,
        "steady_resident_bytes": run.memory.steady.rss,
    }


def plot(known: dict[str, Any], file: Path) -> None:
    """One column a grid: seconds of each stage above, memory below."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    grids = known["grids"]
    figure, axes = pyplot.subplots(2, len(grids), figsize=(4 * len(grids), 6.5), squeeze=False)
    for column, (name, grid) in enumerate(grids.items()):
        xs = [point["x"] for point in grid["points"]]
        above, below = axes[0][column], axes[1][column]
        for stage in ("vision", "prefill", "decode"):
            above.plot(xs, [point.get(stage, 0.0) for point in grid["points"]], marker="o", label=stage)
        for key in ("peak_bytes", "steady_anonymous_bytes"):
            label = key.removesuffix("_bytes").replace("_", ", ")
            below.plot(xs, [(point[key] or 0) / 1e6 for point in grid["points"]], marker="o", label=label)
        above.set(title=name.replace("_", " "), ylabel="seconds")
        below.set(xlabel=grid["axis"], ylabel="MB", ylim=(0, None))
        for axis in (above, below):
            axis.grid(alpha=0.3)
            axis.legend(fontsize="small")
    machine = known["machine"]["processor"]["model"]
    figure.suptitle(f"{machine}, {known['threads']} threads, {known['engine']}, {known['created']}", fontsize="small")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
