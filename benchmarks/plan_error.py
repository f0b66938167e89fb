"""Fit this machine's device profile on some models, and measure how far ``plan`` is off on others.

    python benchmarks/plan_error.py                # about 30 minutes; the same command again goes on where it stopped

Every model is a shape with random weights, exported and measured by ``bench``; NAME:gguf measures one engine alone. The
profile is fitted on the models named by --fit and kept for this machine; with --device NAME it is also written into the
package. A fit needs towers in which attention has different shares: over whole pictures of two sizes, and over tiles.
The errors on the models named by --test, which the fit has not seen, go to benchmarks/results/plan_error.json.
What ``plan`` tells comes from the configuration alone, and its bytes are compared with the tensors in the files.

Every measurement is kept in build/plan/measured for this runtime, these libraries and this bundle.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kept_runs import kept_run
from plan_bytes import stored_bytes
from roofline_fit import Observation, fit_all
from rounds import measuring
from shape_bundles import ROOT, bundle_of, source_of

from edge_mllm.costs.devices import keep_profile
from edge_mllm.costs.estimate import Ask, Cost, costs, stage_works
from edge_mllm.costs.facts import ModelFacts
from edge_mllm.costs.roofline import DeviceProfile, save_profile
from edge_mllm.machine.fingerprint import Machine, fingerprint
from edge_mllm.measure.bench.cases import Grid
from edge_mllm.measure.bench.measure import Plan
from edge_mllm.measure.bench.result import Run
from edge_mllm.session.files import open_bundle

SIZES = ((1024, 768), (512, 512))
"""Two sizes, so that what is paid per picture can be told from what is paid per pixel."""
ANSWER_TOKENS = 32


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

    @property
    def prompt_weights(self) -> bool:
        """Whether the prompt was computed with them."""
        return self.run.engine == "onnx" and self.run.case.prompt_weights

    def told(self, profile: DeviceProfile | None) -> Cost:
        """What plan says of the recipes that ran."""
        parts, engine = self.run.model.parts, self.run.engine
        recipes = (parts[f"decoder_{engine}"], parts["prompt_onnx"] if self.prompt_weights else "", parts["vision"])
        for cost in costs(self.facts, self.ask, profile):
            if cost.engine == engine and (cost.decoder.recipe, cost.decoder.prompt, cost.tower.recipe) == recipes:
                return cost
        raise ValueError(f"plan does not know {engine} {recipes} of {self.facts.name}")

    def observations(self) -> dict[str, Observation]:
        """Line of the profile -> what this run says about it."""
        if self.facts.shape is None:
            raise ValueError(f"{self.facts.name} has no shape")
        cost = self.told(None)
        works = stage_works(self.facts, self.facts.shape, self.ask, (cost.engine, cost.decoder, cost.tower))
        median = {name: summary.median for name, summary in self.run.summary().items()}
        seconds = {
            "picture": median["image_decode"] + median["tiling"],
            "tower": median["vision"],
            "prefill": median["prefill"],
            "token": 1 / median["decode_tps"],
        }
        return {line: Observation(work, seconds[stage]) for stage, (line, work) in works.items()}


def main() -> None:
    """Measure, fit, compare, write."""
    given = _arguments()
    deadline = time.monotonic() + given.minutes * 60
    fitted = [each for name in given.fit.split(",") for each in measure(name, given, deadline)]
    machine = fingerprint(threads=given.threads)
    profile = fit(fitted, machine, given.threads)
    keep_profile(profile)
    if given.device:
        save_profile(profile, ROOT / "edge_mllm" / "costs" / "devices" / f"{given.device}.json")
    tested = [each for name in given.test.split(",") for each in measure(name, given, deadline)]
    rows = [compare(each, profile) for each in tested]
    result = {
        "schema": "edge-mllm-plan-error/2",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": dataclasses.asdict(machine),
        "threads": given.threads,
        "repeat": given.repeat,
        "fitted_on": given.fit.split(","),
        "profile": dataclasses.asdict(profile),
        "fit": [compare(each, profile) for each in fitted],
        "errors": rows,
        "worst": {key: max(abs(row[key]["error"]) for row in rows) for key in ("ttft_s", "decode_tps")},
        "bytes_exact": all(part["told"] == part["stored"] for row in rows for part in row["bytes"].values()),
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        parts = (f"{key} told {row[key]['told']:.3g}, was {row[key]['was']:.3g}" for key in ("ttft_s", "decode_tps"))
        print(f"{row['model']} {row['engine']} {row['picture']}: {'; '.join(parts)}")
    print(f"worst error: {result['worst']}; bytes exact: {result['bytes_exact']}")


def _arguments() -> argparse.Namespace:
    parser = measuring(__file__, __doc__, repeat=2)
    parser.add_argument("--fit", default="smolvlm-256m,internvl3-1b,qwen2-vl-2b")
    parser.add_argument("--test", default="smolvlm-500m,llava-onevision-0.5b:gguf,llava-interleave-0.5b,smolvlm-2.2b")
    parser.add_argument("--engines", default="gguf,onnx", help="of models that do not name their own")
    parser.add_argument("--minutes", type=float, default=30, help="no measurement begins after this time")
    parser.add_argument("--bundles", type=Path, action="append", default=[], help="folders with exported shapes")
    parser.add_argument("--device", help="also write the profile into the package under this name")
    return parser.parse_args()


def measure(wanted: str, given: argparse.Namespace, deadline: float) -> Iterator[Measured]:
    """All engines and both picture sizes of one shape, or of a checkpoint directory; those measured before are read.

    Engine onnx without and with prompt weights.
    """
    from edge_mllm_export.source.facts import facts_of_source

    name, _, engine = wanted.partition(":")
    engines = (engine,) if engine else tuple(given.engines.split(","))
    bundle = bundle_of(name, *given.bundles, engines=engines, prompt_weights="int8" if "onnx" in engines else None)
    facts = facts_of_source(source_of(name))
    plan = Plan(repeat=given.repeat, loads=0, second=False, peaks=False)
    for prompt_weights in (False, True):
        grid = Grid(
            models=[str(bundle)],
            engines=[each for each in engines if each == "onnx" or not prompt_weights],
            threads=(given.threads,),
            image_sizes=SIZES,
            answer_tokens=(ANSWER_TOKENS,),
            prompt_weights=prompt_weights,
        )
        for case in grid.cases():
            yield Measured(facts, kept_run(case, plan, deadline))


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
        lines=fit_all(observations, machine.peaks),
        peaks=machine.peaks,
        source=f"bench on {models}; commit {machine.commit}",
    )


def compare(measured: Measured, profile: DeviceProfile) -> dict[str, Any]:
    """What plan told beside what was measured."""
    told = measured.told(profile)
    was = {name: summary.median for name, summary in measured.run.summary().items()}
    case = measured.run.case
    row: dict[str, Any] = {
        "model": measured.facts.name,
        "engine": measured.run.engine,
        "prompt_weights": measured.prompt_weights,
        "picture": f"{case.image_width}x{case.image_height}",
        "visual_tokens": measured.run.counts.visual_tokens,
        "prompt_tokens": measured.run.counts.prompt_tokens,
        "bytes": _bytes(told, Path(case.model)),
    }
    pairs = {
        "vision_s": (told.vision_s, was["image_decode"] + was["tiling"] + was["vision"]),
        "prefill_s": (told.prefill_s, was["prefill"]),
        "ttft_s": (told.ttft_s, was["ttft"]),
        "decode_tps": (told.decode_tps, was["decode_tps"]),
    }
    return row | {
        name: {"told": mine, "was": true, "error": _error(mine, true)} for name, (mine, true) in pairs.items()
    }


def _error(told: float | None, was: float) -> float:
    if told is None:
        raise ValueError("plan told no time: a stage of this model was not among the fitted ones")
    return told / was - 1


def _bytes(told: Cost, bundle: Path) -> dict[str, dict[str, int]]:
    """Bytes of weights, told and as they lie in the bundle's files."""
    opened = open_bundle(bundle, check_hashes=False)
    stored = stored_bytes(opened, told.engine, prompt_weights=bool(told.decoder.prompt))
    return {
        "decoder": {"told": told.decoder.weight_bytes, "stored": stored["decoder"]},
        "tower": {"told": told.tower.weight_bytes, "stored": stored["tower"]},
    }


if __name__ == "__main__":
    main()
