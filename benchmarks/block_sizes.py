"""ONNX decoders of 4 bits in blocks of 32, 64 and 128: tokens per second after a picture, and what each loses.

Speed is also told for keys and values in 8 bits.

    python benchmarks/block_sizes.py [--shapes NAME ...] [--ways "int4_b64, cache q8" ...] [--pages 150] [--rounds 5]

Speed: bundles of published shapes with random weights, ``Model.generate`` asked the same question about one picture
again and again, so that only decoding is left, recipes in turns. Loss: the starter's checkpoint with calibrated codes,
as an export makes them, on pages that nothing was made with: KL divergence along the checkpoint's own answers, and
answers that are right, each beside blocks of 32 with a paired bootstrap. Results go to
benchmarks/results/block_sizes.json; what is measured already there for other shapes stays.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from rounds import circumstances, in_turns  # noqa: E402

import edge_mllm  # noqa: E402
from benchmarks.quantisation import divergence, points, share  # noqa: E402
from benchmarks.quantisation_material import Material  # noqa: E402
from edge_mllm_export import ExportOptions, export_bundle  # noqa: E402
from edge_mllm_export.options import KVPrecision  # noqa: E402
from edge_mllm_quant.recipes.recipe import find_recipe  # noqa: E402

RECIPES = ("int4_b32", "int4_b64", "int4_b128")
BASE = RECIPES[0]
WAYS: dict[str, tuple[str, KVPrecision | None]] = {
    **{recipe: (recipe, None) for recipe in RECIPES},
    **{f"{recipe}, cache q8": (recipe, "q8") for recipe in RECIPES},
}
"""Name of a speed -> recipe, and how keys and values are kept."""
QUESTION = "What is the person at the door wearing, and is there anything on the ground beside them?"
RESULT = ROOT / "benchmarks" / "results" / "block_sizes.json"
LOGGER = logging.getLogger("block_sizes")


def speed(shape: str, given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Tokens per second of every way, medians and every sample, and as a share of the base."""
    ways = {BASE, *given.ways}
    bundles = {name: work / f"{shape}-{number}.edge" for number, name in enumerate(WAYS) if name in ways}
    for name, bundle in bundles.items():
        recipe, kv = WAYS[name]
        if not bundle.exists():
            export_bundle(f"shape:{shape}", bundle, ExportOptions(format="onnx", quant=recipe, kv=kv, verify=False))
        LOGGER.info("%s %s: %.1f MB", shape, name, sum(f.stat().st_size for f in bundle.iterdir()) / 1e6)
    picture = np.random.default_rng(5).integers(0, 256, (768, 1024, 3), np.uint8)
    models = {name: edge_mllm.load(bundle, threads=given.threads) for name, bundle in bundles.items()}

    def ask(model: edge_mllm.Model) -> tuple[float, int]:
        answer = model.generate(QUESTION, picture, max_new_tokens=given.tokens, ignore_eos=True)
        return answer.timings.decode_tps, answer.usage.prompt_tokens

    samples = in_turns({name: partial(ask, model) for name, model in models.items()}, given.rounds)
    found = circumstances(bundles[BASE], threads=given.threads, repeat=given.rounds, peaks=False)
    base = statistics.median(tps for tps, _ in samples[BASE])
    for name, model in models.items():
        tps = [value for value, _ in samples[name]]
        size = model.spec.parts["decoder_onnx"].bytes + model.spec.parts["decoder_onnx_data"].bytes
        found[name] = {
            "decode_tps": statistics.median(tps),
            "samples": tps,
            "share": statistics.median(tps) / base,
            "decoder_bytes": size,
        }
        LOGGER.info("%s %s: %.1f tokens/s, %.3f", shape, name, found[name]["decode_tps"], found[name]["share"])
        model.close()
    return {**found, "prompt_tokens": samples[BASE][0][1], "answer_tokens": given.tokens}


def loss(given: argparse.Namespace) -> dict[str, Any]:
    """KL divergence, and right answers with their difference to the base in points."""
    with TemporaryDirectory() as scratch:
        material = Material(str(ROOT / "starter" / "checkpoint"), given.pages, given.threads, Path(scratch))
        kl, right, bytes_ = {}, {}, {}
        for name, (recipe, kv) in WAYS.items():
            decoder, bytes_[name] = material.decoder(find_recipe("onnx", recipe), kv_q8=kv == "q8")
            kl[name] = divergence(decoder, material)
            decoder, _ = material.decoder(find_recipe("onnx", recipe), kv_q8=kv == "q8")
            right[name] = np.array(material.bundle_answers(decoder, material.tower("int8", sampled=True)), float)
            LOGGER.info("%s: %.5f nats", name, np.sum(kl[name]["kl"]) / kl[name]["positions"])
    found: dict[str, Any] = {"pages": given.pages, "checkpoint_sha256": material.sha256}
    for name in WAYS:
        entry = {key: kl[name][key] for key in ("top1", "positions")} | {"bytes": bytes_[name]}
        entry |= {"kl": float(np.sum(kl[name]["kl"]) / kl[name]["positions"])}
        entry |= {"right": float(right[name].mean()), "questions": len(right[name])}
        if name != BASE:
            entry["share_of_base"] = share(np.array(kl[name]["kl"]), np.array(kl[BASE]["kl"]))
            entry["points"] = points(right[name] - right[BASE])
        found[name] = entry
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="*", default=["smolvlm-500m", "internvl3-1b", "qwen2-vl-2b"])
    parser.add_argument("--ways", nargs="*", default=[*WAYS], choices=[*WAYS], help="speeds beside the first, all")
    parser.add_argument("--pages", type=int, default=150, help="0 leaves the loss out")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "block_sizes", help="bundles that are there stay")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOGGER.setLevel(logging.INFO)
    result = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"speed": {}, "loss": {}}
    for shape in given.shapes:
        given.work.mkdir(parents=True, exist_ok=True)
        result["speed"][shape] = speed(shape, given, given.work)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.pages:
        result["loss"] = loss(given)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
