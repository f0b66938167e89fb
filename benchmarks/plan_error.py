"""Fit this machine's device profile on some models, and measure how far ``plan`` is off on others.

    python benchmarks/plan_error.py

Every model is a shape with random weights, exported and measured by ``bench`` on both engines. The profile is fitted on
the models named by --fit and kept for this machine; with --device NAME it is also written into the package. The errors
on the models named by --test, which the fit has not seen, go to benchmarks/results/plan_error.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_mllm.bench.cases import Grid
from edge_mllm.bench.fingerprint import Machine, fingerprint
from edge_mllm.bench.measure import Plan, run_grid
from edge_mllm.bench.result import Run
from edge_mllm.bundle_files import open_bundle
from edge_mllm.plan.costs import Ask, costs, stage_works
from edge_mllm.plan.devices import keep_profile
from edge_mllm.plan.facts import ModelFacts, facts_of_bundle
from edge_mllm.plan.roofline import DeviceProfile, Observation, fit_all, save_profile

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "plan"
SIZES = ((1024, 768), (512, 512))
"""Two sizes, so that what is paid per picture can be told from what is paid per pixel."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """One run with what was known before it."""

    facts: ModelFacts
    run: Run

    @property
    def ask(self) -> Ask:
        """The question that was asked, told as plan is told."""
        case, counts = self.run.case, self.run.counts
        text = counts.prompt_tokens - counts.visual_tokens
        return Ask(
            width=case.image_width, height=case.image_height, text_tokens=text, answer_tokens=counts.completion_tokens
        )

    def observations(self) -> dict[str, Observation]:
        """Line of the profile -> what this run says about it."""
        if self.facts.shape is None:
            raise ValueError(f"{self.facts.name} has no shape")
        decoder, tower = self.facts.decoders[self.run.engine][0], self.facts.towers[0]  # type: ignore[index]
        works = stage_works(self.facts, self.facts.shape, self.ask, (self.run.engine, decoder, tower))  # type: ignore[arg-type]
        median = {name: summary.median for name, summary in self.run.summary().items()}
        seconds = {
            "picture": median["image_decode"] + median["tiling"],
            "tower": median["vision"],
            "prefill": median["prefill"],
            "token": 1 / median["decode_tps"],
        }
        return {work.line: Observation(work.amount, work.count, seconds[stage]) for stage, work in works.items()}


def main() -> None:
    """Measure, fit, compare, write."""
    given = _arguments()
    fitted = [each for name in given.fit.split(",") for each in measure(name, given.threads, given.repeat)]
    machine = fingerprint(threads=given.threads)
    profile = fit(fitted, machine, given.threads)
    keep_profile(profile)
    if given.device:
        save_profile(profile, ROOT / "edge_mllm" / "plan" / "devices" / f"{given.device}.json")
    tested = [each for name in given.test.split(",") for each in measure(name, given.threads, given.repeat)]
    rows = [compare(each, profile) for each in tested]
    result = {
        "schema": "edge-mllm-plan-error/1",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": dataclasses.asdict(machine),
        "threads": given.threads,
        "repeat": given.repeat,
        "fitted_on": given.fit.split(","),
        "profile": dataclasses.asdict(profile),
        "errors": rows,
        "worst": {key: max(abs(row[key]["error"]) for row in rows) for key in ("ttft_s", "decode_tps")},
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        parts = (f"{key} told {row[key]['told']:.3g}, was {row[key]['was']:.3g}" for key in ("ttft_s", "decode_tps"))
        print(f"{row['model']} {row['engine']} {row['picture']}: {'; '.join(parts)}")
    print(f"worst error: {result['worst']}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", default="smolvlm-256m,internvl3-1b")
    parser.add_argument("--test", default="smolvlm-500m,qwen2-vl-2b,smolvlm-2.2b")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", help="also write the profile into the package under this name")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "plan_error.json")
    return parser.parse_args()


def measure(shape: str, threads: int, repeat: int) -> list[Measured]:
    """Both engines and both picture sizes of one shape; a checkpoint directory does as well."""
    bundle = BUILD / f"{Path(shape).name}.edge"
    source = shape if Path(shape).is_dir() else f"shape:{shape}"
    facts = _facts(source, bundle)
    grid = Grid(models=[str(bundle)], engines=("gguf", "onnx"), threads=(threads,), image_sizes=SIZES)
    result = run_grid(grid.cases(), Plan(repeat=repeat, loads=1, second=False, peaks=False), print)
    return [Measured(facts, run) for run in result.runs]


def _facts(source: str, bundle: Path) -> ModelFacts:
    from edge_mllm_export import ExportOptions, export_bundle
    from edge_mllm_export.source_facts import facts_of_source

    BUILD.mkdir(parents=True, exist_ok=True)
    if not bundle.exists():
        export_bundle(source, bundle, ExportOptions(verify=False, calibration=False), print)
    facts = facts_of_bundle(open_bundle(bundle, check_hashes=False))
    return dataclasses.replace(facts, shape=facts_of_source(source).shape)


def fit(measured: Sequence[Measured], machine: Machine, threads: int) -> DeviceProfile:
    """The profile that these runs give."""
    observations: dict[str, list[Observation]] = defaultdict(list)
    for each in measured:
        for name, observation in each.observations().items():
            observations[name].append(observation)
    models = ", ".join(dict.fromkeys(each.facts.name for each in measured))
    return DeviceProfile(
        machine=machine.id,
        processor=machine.processor.model,
        memory_bytes=machine.memory_bytes,
        threads=threads,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        lines=fit_all(observations),
        peaks=machine.peaks,
        source=f"bench on {models}",
    )


def compare(measured: Measured, profile: DeviceProfile) -> dict[str, Any]:
    """What plan told beside what was measured."""
    told = next(cost for cost in costs(measured.facts, measured.ask, profile) if cost.engine == measured.run.engine)
    was = {name: summary.median for name, summary in measured.run.summary().items()}
    case = measured.run.case
    row: dict[str, Any] = {
        "model": measured.facts.name,
        "engine": measured.run.engine,
        "picture": f"{case.image_width}x{case.image_height}",
        "visual_tokens": measured.run.counts.visual_tokens,
        "bytes": {"told": told.disk_bytes, "on_disk": measured.run.model.bytes_on_disk},
    }
    for key, mine in (("ttft_s", told.ttft_s), ("decode_tps", told.decode_tps)):
        true = was["ttft" if key == "ttft_s" else key]
        row[key] = {"told": mine, "was": true, "error": (mine or 0.0) / true - 1}
    return row


if __name__ == "__main__":
    main()
