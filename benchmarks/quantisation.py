"""What quantisation costs and what calibration with pictures is worth: divergence and held-out answers, with intervals.

    python benchmarks/quantisation.py [CHECKPOINT] [--pages 300] [--work DIR] [--out FILE]

Divergence: one question a held-out page; every variant follows the checkpoint's own float32 answers, decoders on the
checkpoint's visual embeddings, towers through a float32 decoder. GGUF decoders without calibration, with llama.cpp's
importance matrix from text alone, with the same from pictures, and as the exporter makes them (that matrix, then codes
chosen again); ONNX decoders by rounding to nearest, k-quant, HQQ and as the exporter makes them; towers in float32,
int8 and int4 with and without samples; the cache in 8 bits. Answers: every question about the same pages, exact match,
the checkpoint in bfloat16 against bundles.

Intervals are paired bootstraps over questions. Finished variants are kept in the work folder, so an interrupted run
goes on where it was. Drawing the pages takes the fonts that starter/fonts.py lists.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rounds import when_and_where  # noqa: E402

from benchmarks.quantisation_material import GGUF_RECIPES, Material, Tower  # noqa: E402
from edge_mllm.answer.decoding.cells import CellCache  # noqa: E402
from edge_mllm.decoders.protocol import Decoder  # noqa: E402
from edge_mllm.measure.eval.resampling import bootstrap_interval  # noqa: E402
from edge_mllm_export.verify.agreement import kl_divergence  # noqa: E402
from edge_mllm_export.verify.candidate import along  # noqa: E402

RESAMPLES = 2000
LOGGER = logging.getLogger("quantisation")
Entry = dict[str, Any]


class Store:
    """Finished variants as JSON files, one each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, measure: Callable[[], Entry]) -> Entry:
        """What was measured under this name, now or in an earlier run."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            start = time.perf_counter()
            entry = measure() | {"seconds": round(time.perf_counter() - start, 1)}
            path.write_text(json.dumps(entry), encoding="utf-8")
        found: Entry = json.loads(path.read_text(encoding="utf-8"))
        shown = (
            f"KL {np.sum(found['kl']) / found['positions']:.5f}" if "kl" in found else f"{np.mean(found['right']):.4f}"
        )
        LOGGER.info("%s: %s (%.0f s)", name, shown, found["seconds"])
        return found


def divergence(decoder: Decoder, material: Material, tower: Tower | None = None) -> Entry:
    """KL divergence and equal best tokens, summed for every question."""
    loss, same, positions = [], 0, 0
    for number, (prepared, answer) in enumerate(zip(material.prepared, material.answers, strict=True)):
        visual = answer.visual if tower is None else tower.page(number)
        logits = along(CellCache(decoder), prepared, visual, answer.tokens)
        loss.append(float(kl_divergence(answer.logits, logits).sum()))
        same += int((logits.argmax(-1) == answer.logits.argmax(-1)).sum())
        positions += len(answer.tokens)
    decoder.close()
    return {"kl": loss, "top1": same / positions, "positions": positions}


def gguf_variants(material: Material, store: Store) -> dict[str, dict[str, Entry]]:
    """Recipe -> way of calibrating -> numbers."""
    found: dict[str, dict[str, Entry]] = {}
    for recipe in GGUF_RECIPES:
        found[recipe] = {}
        for way in ("none", "imatrix_text", "imatrix_pictures", "ours"):

            def measure(recipe: str = recipe, way: str = way) -> Entry:
                path = material.gguf(recipe, way)
                return divergence(material.llama(path), material) | {"bytes": path.stat().st_size}

            found[recipe][way] = store.get(f"gguf-{recipe}-{way}", measure)
    ways = {
        kind: store.get(
            f"gguf-q4_0-ours-kv_{kind}",
            lambda kind=kind: divergence(material.llama(material.gguf("q4_0", "ours"), kv_type=kind), material),
        )
        for kind in ("f16", "q8_0")
    }
    return {**found, "q4_0 cache": {"none": ways["f16"], "q8_0": ways["q8_0"]}}


def onnx_variants(material: Material, store: Store) -> dict[str, Entry]:
    """The same for the ONNX decoder."""

    def measure(way: str) -> Entry:
        folder, size = material.onnx(way)
        return divergence(material.ort(folder), material) | {"bytes": size}

    return {name: store.get(f"onnx-{way}", lambda way=way: measure(way)) for name, way in ONNX_WAYS.items()}


ONNX_WAYS = {"none": "rtn", "k_quant": "kquant", "hqq": "hqq", "ours": "ours", "ours, cache q8": "ours_kv_q8"}
"""Name in the result -> how the decoder is made."""
TOWERS = (
    ("fp32", False),
    ("int8", False),
    ("int8", True),
    ("int8_static", True),
    ("int4", False),
    ("int4", True),
)
"""Recipe, and whether samples decide; a static one takes its steps from them."""


def towers(material: Material, store: Store) -> dict[str, Entry]:
    """Towers through a float32 decoder."""
    found = {}
    for recipe, sampled in TOWERS:
        name = f"{recipe}{'-ours' if sampled else ''}"

        def measure(recipe: str = recipe, sampled: bool = sampled) -> Entry:
            tower = material.tower(recipe, sampled=sampled)
            entry = divergence(material.llama(material.gguf("f32", "none"), kv_type="f32"), material, tower)
            return entry | {"bytes": tower.bytes, **tower.agreement(material.answers)}

        found["none" if name == "fp32" else name] = store.get(f"vision-{name}", measure)
    return found


BUNDLES = (
    ("float32", "fp32", False, "gguf", "f32", "none"),
    ("int8 tower, plain", "int8", False, "gguf", "f32", "none"),
    ("int8 tower", "int8", True, "gguf", "f32", "none"),
    ("int8_static tower", "int8_static", True, "gguf", "f32", "none"),
    ("int4 tower", "int4", True, "gguf", "f32", "none"),
    ("gguf default without calibration", "int8", False, "gguf", "q4_0", "none"),
    ("gguf default", "int8", True, "gguf", "q4_0", "ours"),
    ("onnx default without calibration", "int8", False, "onnx", "int4_b32", "rtn"),
    ("onnx default", "int8", True, "onnx", "int4_b32", "ours"),
)
"""Name, tower and whether samples decide, engine, decoder recipe and way."""


def answers(material: Material, store: Store) -> dict[str, Entry]:
    """Which of all questions are answered right, by the checkpoint and by bundles."""
    found = {"checkpoint bf16": store.get("answers-checkpoint", lambda: {"right": material.checkpoint_answers()})}
    for name, tower, sampled, engine, recipe, way in BUNDLES:

        def measure(
            tower: str = tower, sampled: bool = sampled, parts: tuple[str, str, str] = (engine, recipe, way)
        ) -> Entry:
            engine, recipe, way = parts
            if engine == "gguf":
                decoder = material.llama(material.gguf(recipe, way), kv_type="f32" if recipe == "f32" else None)
            else:
                decoder = material.ort(material.onnx(way)[0])
            return {"right": material.bundle_answers(decoder, material.tower(tower, sampled=sampled))}

        found[name] = store.get(f"answers-{name.replace(', ', '-').replace(' ', '_')}", measure)
    return found


def compare(ways: Mapping[str, Entry], bases: Sequence[str]) -> dict[str, Entry]:
    """Mean divergence of every way, and as a share of some of them with paired intervals."""
    sums = {name: np.array(way["kl"]) for name, way in ways.items()}
    table = {}
    for name, way in ways.items():
        entry = {key: value for key, value in way.items() if key not in ("kl", "positions", "seconds")}
        entry["kl"] = float(sums[name].sum() / way["positions"])
        for base in bases:
            if base in sums and base != name and sums[base].sum() > 0:
                entry[f"share_of_{base}"] = share(sums[name], sums[base])
        table[name] = entry
    return table


def share(over: Any, under: Any) -> Entry:
    """Ratio of the sums of two results [questions], with a bootstrap over questions that keeps their pairs."""
    picks = np.random.default_rng(0).integers(0, len(over), (RESAMPLES, len(over)))
    low, high = np.percentile(over[picks].sum(1) / under[picks].sum(1), [2.5, 97.5])
    return {"value": float(over.sum() / under.sum()), "interval_95": [float(low), float(high)]}


def differences(found: Mapping[str, Entry]) -> dict[str, Entry]:
    """Share of right answers and the paired difference to the checkpoint, in points."""
    base = np.array(found["checkpoint bf16"]["right"], float)
    table: dict[str, Entry] = {}
    for name, entry in found.items():
        table[name] = {"right": float(np.mean(entry["right"])), "questions": len(base)}
        if name != "checkpoint bf16":
            table[name]["points"] = points(np.array(entry["right"], float) - base)
    return table


def points(gaps: Any) -> Entry:
    """Mean of differences [questions] in hundredths, with a bootstrap over questions."""
    interval = bootstrap_interval(100 * gaps, resamples=RESAMPLES)
    return {"value": float(100 * gaps.mean()), "interval_95": [*interval]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default=str(ROOT / "starter" / "checkpoint"))
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "quantisation", help="where finished variants stay"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "quantisation.json")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOGGER.setLevel(logging.INFO)
    with TemporaryDirectory() as scratch:
        material = Material(given.source, given.pages, given.threads, Path(scratch))
        store = Store(given.work / f"{material.sha256[:16]}-{given.pages}")
        gguf = gguf_variants(material, store)
        decoders = {**gguf, "int4_b32": onnx_variants(material, store)}
        result = {
            **when_and_where(),
            "checkpoint_sha256": material.sha256,
            "pages": given.pages,
            "positions": gguf["q4_0"]["none"]["positions"],
            "decoders": {name: compare(ways, ("none", "imatrix_text")) for name, ways in decoders.items()},
            "vision": compare(towers(material, store), ("int8",)),
            "answers": differences(answers(material, store)),
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("decoders", "vision", "answers")}, indent=1))


if __name__ == "__main__":
    main()
