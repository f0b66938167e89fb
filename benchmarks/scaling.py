"""How time and memory grow: with visual tokens, answer length, context, pictures, and the size of the model.

    python benchmarks/scaling.py --export           # bundles of all shapes, once
    python benchmarks/scaling.py                    # about 12 minutes; the same command again goes on where it stopped
    python benchmarks/scaling.py --only pictures    # one grid

Every point is a bench case in a process of its own, on a shape with random weights. Results go to
benchmarks/results/scaling.json, one entry a grid (entries of other grids stay), and a plot beside it, PNG and SVG.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kept_runs import kept_run
from rounds import when_and_where
from shape_bundles import ROOT, bundle_of

from edge_mllm.bundle.files import DECODER_PARTS
from edge_mllm.measure.bench.cases import Grid
from edge_mllm.measure.bench.measure import Plan
from edge_mllm.measure.bench.result import Run
from edge_mllm.session.files import open_bundle

RESULTS = ROOT / "benchmarks" / "results"
SMALL = "smolvlm-256m"
SHAPES = (SMALL, "smolvlm-500m", "internvl3-1b", "qwen2-vl-2b", "qwen2.5-vl-3b")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One grid and what its axis is."""

    label: str
    axis: Callable[[Run], float]
    grid: dict[str, Any]
    shapes: tuple[str, ...] = (SMALL,)
    warmup: int = 1
    repeat: int = 1
    """Once where an answer takes long: what happens once in a while is small beside it."""


def _megabytes(run: Run) -> float:
    """Bytes on disk of tower and decoder, in MB: a bundle may hold another decoder and prompt weights too."""
    spec = open_bundle(Path(run.case.model), check_hashes=False).spec
    decoder = [name for name in DECODER_PARTS[run.engine] if not name.startswith("prompt")]
    return sum(part.bytes for name, part in spec.parts.items() if name in (*decoder, "vision", "vision_data")) / 1e6


SWEEPS = {
    "visual_tokens": Sweep(
        "visual tokens (one picture, any size)",
        lambda run: run.counts.visual_tokens,
        {"image_sizes": ((224, 224), (448, 448), (728, 728), (1024, 1024), (1400, 1400)), "answer_tokens": (8,)},
        ("qwen2-vl-2b",),
        warmup=0,
    ),
    "pictures": Sweep(
        "pictures of 832 visual tokens",
        lambda run: run.case.images,
        {"images": (1, 2, 4, 8), "answer_tokens": (16,)},
        warmup=0,
    ),
    "answer_length": Sweep(
        "tokens of the answer",
        lambda run: run.counts.completion_tokens,
        {"images": (0,), "answer_tokens": (16, 64, 256, 1000)},
        repeat=2,
    ),
    "context": Sweep(
        "tokens of the prompt",
        lambda run: run.counts.prompt_tokens,
        {"images": (0,), "prompt_tokens": (64, 512, 2048, 4096, 8000), "answer_tokens": (16,)},
        repeat=2,
    ),
    "model_size": Sweep("MB of tower and decoder", _megabytes, {"answer_tokens": (32,)}, SHAPES),
}


def main() -> None:
    """Measure the grids that are asked for, write and plot."""
    given = _arguments()
    names = given.only or list(SWEEPS)
    bundles = {shape: bundle_of(shape, *given.bundles, engines=(given.engine,)) for shape in _shapes(names, given)}
    if given.export:
        return
    deadline = time.monotonic() + given.minutes * 60
    known = json.loads(given.out.read_text()) if given.out.exists() else {"grids": {}}
    for name in names:
        known["grids"][name] = measure(SWEEPS[name], given, bundles, deadline)
        known |= {
            "schema": "edge-mllm-scaling/2",
            **when_and_where("created"),
            "engine": given.engine,
            "threads": given.threads,
        }
        given.out.write_text(json.dumps(known, indent=1) + "\n")
    for suffix in (".png", ".svg"):
        plot(known, given.out.with_suffix(suffix))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SWEEPS), action="append")
    parser.add_argument("--shapes", help="only these, with commas between, where a grid has several")
    parser.add_argument("--engine", default="gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=15, help="no measurement begins after this time")
    parser.add_argument("--export", action="store_true", help="export the shapes and measure nothing")
    parser.add_argument("--bundles", type=Path, action="append", default=[], help="folders with exported shapes")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    return parser.parse_args()


def _shapes(names: Iterable[str], given: argparse.Namespace) -> list[str]:
    """Of all grids, each once."""
    return list(dict.fromkeys(shape for name in names for shape in _wanted(SWEEPS[name], given)))


def _wanted(sweep: Sweep, given: argparse.Namespace) -> tuple[str, ...]:
    if given.shapes is None or len(sweep.shapes) == 1:
        return sweep.shapes
    return tuple(given.shapes.split(","))


def measure(sweep: Sweep, given: argparse.Namespace, bundles: Mapping[str, Path], deadline: float) -> dict[str, Any]:
    """Every point of a grid, in the order of its axis."""
    models = [str(bundles[shape]) for shape in _wanted(sweep, given)]
    grid = Grid(models=models, engines=(given.engine,), threads=(given.threads,), prompt_weights=False, **sweep.grid)
    plan = Plan(warmup=sweep.warmup, repeat=sweep.repeat, loads=0, second=False, peaks=False)
    points = [_point(sweep, kept_run(case, plan, deadline)) for case in grid.cases()]
    repeated = {"warmup": sweep.warmup, "repeat": sweep.repeat}
    return {"axis": sweep.label, **repeated, "points": sorted(points, key=lambda point: point["x"])}


def _point(sweep: Sweep, run: Run) -> dict[str, Any]:
    summary = run.summary()
    names = ("ttft", "vision", "prefill", "decode", "end_to_end", "prefill_tps", "decode_tps")
    return {
        "x": sweep.axis(run),
        "model": run.model.name,
        **dataclasses.asdict(run.counts),
        **{name: summary[name].median for name in names if name in summary},
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
    figure, axes = pyplot.subplots(2, len(grids), figsize=(3.2 * len(grids), 5.5), squeeze=False)
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
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
