"""What ``edge-mllm bench`` promises, shown: stages add up, two runs agree, the file is what its schema says.

    python benchmarks/bench_check.py             # about 6 minutes on 2 cores

The starter and shapes with random weights are measured twice on both engines, every time in a process of its own, the
second round after the whole first one. Of every run: the share of an answer that no stage accounts for (median, and the
largest of all answers); of every pair: the ratio of the medians of decoding. They go to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rounds import measuring, when_and_where
from shape_bundles import bundle_of

from edge_mllm.measure.bench import result as results
from edge_mllm.measure.bench.cases import Grid
from edge_mllm.measure.bench.measure import Plan, run_grid
from edge_mllm.session.files import starter_bundle

SCHEMA = Path(results.__file__).with_name("schema.json")
STAGES_WITHIN, DECODE_WITHIN = 0.03, 0.05


def main() -> None:
    """Measure twice, compare, write; the exit code says whether all promises were kept."""
    given = _arguments()
    names = {"starter": starter_bundle()} | {n: bundle_of(n, *given.bundles) for n in given.shapes.split(",") if n}
    grid = Grid(models=[str(path) for path in names.values()], engines=("gguf", "onnx"), threads=(given.threads,))
    plan = Plan(repeat=given.repeat, loads=0, second=False, peaks=False)
    rounds = [run_grid(grid.cases(), plan, print) for _ in range(2)]
    for found in rounds:
        validate(found)
    named = {str(path): name for name, path in names.items()}
    entries = [compare(named, *pair) for pair in zip(*(found.runs for found in rounds), strict=True)]
    worst = {
        "unaccounted": max(entry["unaccounted"] for entry in entries),
        "decode_differs": max(abs(entry["decode_ratio"] - 1) for entry in entries),
    }
    result = {
        "schema": "edge-mllm-bench-check/1",
        **when_and_where("created"),
        "threads": given.threads,
        "repeat": given.repeat,
        "validated_against": SCHEMA.name,
        "runs": entries,
        "worst": worst,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(entries, indent=1), worst)
    if worst["unaccounted"] > STAGES_WITHIN or worst["decode_differs"] > DECODE_WITHIN:
        raise SystemExit(f"not kept: stages within {STAGES_WITHIN:.0%}, decoding within {DECODE_WITHIN:.0%}")


def _arguments() -> argparse.Namespace:
    parser = measuring(__file__, __doc__, repeat=5)
    parser.add_argument("--shapes", default="smolvlm-256m,smolvlm-500m")
    parser.add_argument("--bundles", type=Path, action="append", default=[], help="folders with exported shapes")
    return parser.parse_args()


def validate(found: results.Result) -> None:
    """Hold a result's JSON against the published schema."""
    import jsonschema

    data = json.loads(json.dumps(results.result_to_dict(found)))
    jsonschema.validate(data, json.loads(SCHEMA.read_text("utf-8")))


def compare(named: dict[str, str], first: results.Run, second: results.Run) -> dict[str, Any]:
    """One case in both rounds; ``named`` tells what the bundles are of."""
    medians = [{name: each.median for name, each in run.summary().items()} for run in (first, second)]
    largest = max(abs(sample.residual) for run in (first, second) for sample in run.samples)
    stages = {name: [median[name] for median in medians] for name in (*results.STAGES, "end_to_end", "decode_tps")}
    return {
        "model": named[first.case.model],
        "engine": first.engine,
        "unaccounted": max(abs(median["residual"]) for median in medians),
        "unaccounted_largest": largest,
        "decode_ratio": medians[1]["decode_tps"] / medians[0]["decode_tps"],
        "medians": stages,
    }


if __name__ == "__main__":
    main()
