"""Peak memory of one answer about a picture, resident and anonymous, beside what ``model.plan`` told before.

    python benchmarks/run_memory.py BUNDLE [--repeat 3] [--out FILE]

Every measurement is a process of its own, as ``edge-mllm run`` is. Ways are an engine and words: ``low`` memory,
``prompt`` weights, ``kept`` graphs; those that the bundle has no files for are left out. ``allowed`` is what the
runtime is to stay below: weights, keys and values and 300 MB; with low memory 1.15 times the larger part in place of
both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PROMPT, ANSWER, PICTURE = "What is in this picture?", 16, (1024, 768)
HEADROOM = 300_000_000


WAYS = ("onnx", "onnx low", "onnx kept", "onnx prompt", "onnx prompt low", "onnx prompt kept", "gguf", "gguf low")


def measure(bundle: Path, way: str, threads: int) -> dict[str, Any]:
    """One answer in this process."""
    import edge_mllm
    from edge_mllm.measure.bench.cases import sample_picture
    from edge_mllm.measure.bench.memory import reset_peak

    picture = sample_picture(*PICTURE, 0)
    engine, *words = way.split()
    low_memory, prompt = "low" in words, "prompt" in words
    with edge_mllm.load(
        bundle,
        engine=engine,
        low_memory=low_memory,
        prompt_weights=prompt,
        threads=threads,
        check_hashes=False,
        provider="cpu",
    ) as model:
        plan = model.plan(PROMPT, [picture], max_new_tokens=ANSWER)
        reset_peak()
        answer = model.generate(PROMPT, [picture], max_new_tokens=ANSWER, ignore_eos=True)
        cell = model.decoder.cell_bytes or 0
        weights = {name: model.reader.weight_bytes(pictures=name == "both") for name in ("decoder", "both")}
    cache = cell * (answer.usage.prompt_tokens + answer.usage.completion_tokens)
    tower = weights["both"] - weights["decoder"]
    held = 1.15 * max(weights["decoder"], tower) if low_memory else weights["both"]
    peak, told = answer.peak_rss_bytes or 0, plan.memory.peak_bytes
    return {
        "decoder_bytes": weights["decoder"],
        "tower_bytes": tower,
        "cache_bytes": cache,
        "peak": peak,
        "peak_anonymous": answer.peak_anonymous_bytes or 0,
        "allowed": int(held + cache + HEADROOM),
        "told": told,
        "told_of_peak": round(told / peak, 3),
        "plan": dataclasses.asdict(plan.memory),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "run_memory.json")
    given = parser.parse_args()
    if given.way is not None:
        print(json.dumps(measure(given.bundle, given.way, given.threads)))
        return
    from rounds import in_turns, own_process, when_and_where

    from edge_mllm.session.files import open_bundle
    from edge_mllm.session.keep_graphs import keep_graphs

    parts = open_bundle(given.bundle, check_hashes=False).spec.parts
    names = [way for way in WAYS if "prompt" not in way or "prompt_onnx" in parts]
    with TemporaryDirectory() as kept, TemporaryDirectory() as empty:
        os.environ["EDGE_MLLM_CACHE"] = kept
        keep_graphs(given.bundle)

        def one(way: str) -> dict[str, Any]:
            os.environ["EDGE_MLLM_CACHE"] = kept if "kept" in way else empty
            found: dict[str, Any] = own_process(__file__, given.bundle, "--threads", given.threads, "--way", way)
            return found

        runs = in_turns({way: partial(one, way) for way in names}, given.repeat, warmup=0)
    result = {
        **when_and_where(),
        "bundle": given.bundle.name,
        "picture": f"{PICTURE[0]}x{PICTURE[1]}",
        "threads": given.threads,
        "repeat": given.repeat,
        "ways": {
            way: {
                key: found[0][key] if key == "plan" else round(median(run[key] for run in found), 3) for key in found[0]
            }
            for way, found in runs.items()
        },
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for way, each in result["ways"].items():
        sizes = ", ".join(f"{key} {each[key] / 1e6:.0f}" for key in ("peak", "peak_anonymous", "allowed", "told"))
        print(f"{way}: {sizes} MB")


if __name__ == "__main__":
    main()
