"""Whether ``--quant auto`` beats or equals every fixed recipe of the same size, on pages that it has not seen.

    python benchmarks/auto_quant.py [CHECKPOINT] [--pages 200] [--format both] [--sweep-only] [--out FILE]

The export measures and chooses once (its time is reported; with ``--sweep-only`` that is all, and the next run goes on
from it). Then, for the size of each fixed decoder recipe with the default int8 tower, the choice within that size is
taken from what was measured, both are made again, and both follow the checkpoint's answers to held-out pages, each
through its own tower: mean KL divergence in nats per token, and the paired difference with a bootstrap interval over
questions. Held-out pages have fonts, words and a layout that no page of the exporter has. ``not worse`` means that the
interval reaches zero or below, ``better`` that all of it lies below.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rounds import when_and_where  # noqa: E402

from benchmarks.quantisation import RESAMPLES, divergence  # noqa: E402
from benchmarks.quantisation_material import Material  # noqa: E402
from edge_mllm_export import ExportOptions, export_bundle  # noqa: E402
from edge_mllm_export.auto.choice import Measured, choose  # noqa: E402
from edge_mllm_export.auto.gguf import BASE, MIXED  # noqa: E402
from edge_mllm_export.auto.report import JSON_FILE, PLOT_FILE, TABLE_FILE  # noqa: E402
from edge_mllm_export.auto.sweep import FIXED  # noqa: E402
from edge_mllm_export.options import Format  # noqa: E402
from edge_mllm_quant.recipes.override import apply_overrides, parse_override  # noqa: E402
from edge_mllm_quant.recipes.recipe import Component, Recipe, find_recipe  # noqa: E402

LOGGER = logging.getLogger("auto_quant")
LIMIT_S = 600
EVERYTHING = 1 << 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default=str(ROOT / "starter" / "checkpoint"))
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--format", choices=("gguf", "onnx", "both"), default="both")
    parser.add_argument("--sweep-only", action="store_true")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "auto_quant", help="where the sweep stays")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "auto_quant.json")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOGGER.setLevel(logging.INFO)
    found = sweep(given.source, given.format, given.work)
    if given.sweep_only:
        return
    with TemporaryDirectory() as scratch:
        material = Material(given.source, given.pages, given.threads, Path(scratch))
        engines: list[Component] = ["onnx", "gguf"] if given.format == "both" else [given.format]
        rows = [row for engine in engines for row in compare(engine, found["measured"], material)]
    result = {
        **when_and_where(),
        "checkpoint_sha256": material.sha256,
        "pages": given.pages,
        "sweep": {key: found[key] for key in ("export_seconds", "within_time", "load_average", "prompts", "positions")},
        "comparisons": rows,
        "beats_or_equals_all": all(row["not_worse"] for row in rows),
    }
    for name in (TABLE_FILE, PLOT_FILE):
        shutil.copy(given.work / name, given.out.with_suffix(Path(name).suffix))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def sweep(source: str, format: Format, work: Path) -> dict[str, Any]:
    """What the export found, now or in an earlier run, and the time it took, everything written and not verified."""
    if not (work / JSON_FILE).exists():
        work.mkdir(parents=True, exist_ok=True)
        options = ExportOptions(format=format, quant="auto", max_size=EVERYTHING, verify=False)
        load, start = os.getloadavg()[0], time.perf_counter()
        with TemporaryDirectory() as scratch:
            out = Path(scratch) / "auto.edge"
            export_bundle(source, out, options, LOGGER.info)
            seconds = time.perf_counter() - start
            found = json.loads((out / JSON_FILE).read_text(encoding="utf-8"))
            for name in (TABLE_FILE, PLOT_FILE):
                shutil.copy(out / name, work / name)
        found |= {"export_seconds": round(seconds, 1), "within_time": seconds <= LIMIT_S, "load_average": load}
        (work / JSON_FILE).write_text(json.dumps(found), encoding="utf-8")
    stored: dict[str, Any] = json.loads((work / JSON_FILE).read_text(encoding="utf-8"))
    return stored


def compare(engine: Component, measured: list[dict[str, Any]], material: Material) -> list[dict[str, Any]]:
    """One row for each fixed recipe of an engine."""
    known = [read_row(row) for row in measured if row["component"] in (engine, "vision")]
    tower = next(item for item in known if item.component == "vision" and item.label == "int8")
    losses: dict[tuple[str, str], np.ndarray] = {}

    def whole(decoder: Recipe, vision: Recipe) -> np.ndarray:
        key = (" ".join((decoder.name, *decoder.overrides)), vision.name)
        if key not in losses:
            entry = divergence(material.decoder(decoder)[0], material, material.tower(vision.name, sampled=True))
            losses[key] = np.array(entry["kl"]) / (entry["positions"] / len(entry["kl"]))
            LOGGER.info("%s + %s: KL %.5f", *key, losses[key].mean())
        return losses[key]

    rows = []
    for name in FIXED[engine]:
        fixed = next(item for item in known if item.component == engine and item.label == name)
        size = fixed.bytes + tower.bytes
        chosen = choose(known, size, None)
        ours = whole(chosen[engine].recipe, chosen["vision"].recipe)
        theirs = whole(fixed.recipe, tower.recipe)
        rows.append(row_of(engine, size, (f"{name} + int8", theirs), (f"{label(chosen, engine)}", ours)))
    return rows


def label(chosen: dict[Component, Measured], engine: Component) -> str:
    """What was chosen, in words."""
    return f"{chosen[engine].label} + {chosen['vision'].label}"


def row_of(engine: str, size: int, fixed: tuple[str, np.ndarray], auto: tuple[str, np.ndarray]) -> dict[str, Any]:
    """The two losses and their paired difference."""
    gap = auto[1] - fixed[1]
    picks = np.random.default_rng(0).integers(0, len(gap), (RESAMPLES, len(gap)))
    low, high = np.percentile(gap[picks].mean(1), [2.5, 97.5])
    return {
        "engine": engine,
        "size": size,
        "fixed": {"name": fixed[0], "kl": float(fixed[1].mean())},
        "auto": {"name": auto[0], "kl": float(auto[1].mean())},
        "difference": {"value": float(gap.mean()), "interval_95": [float(low), float(high)]},
        "not_worse": bool(low <= 0),
        "better": bool(high < 0),
    }


def read_row(row: dict[str, Any]) -> Measured:
    """A line of the export's report as what it was made from."""
    name, *overrides = row["name"].split()
    component: Component = row["component"]
    recipe = find_recipe(component, BASE if name == MIXED else name)
    if name == MIXED:
        recipe = replace(recipe, name=name, gguf_type=BASE)
    recipe = apply_overrides({component: recipe}, [parse_override(text) for text in overrides])[component]
    return Measured(component, recipe, row["bytes"], np.array(row["by_prompt"]), row.get("cosine"))


if __name__ == "__main__":
    main()
