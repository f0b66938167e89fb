"""A screen on which one tile changed: what its first token costs beside that of a new screen, and beside one tile.

    python benchmarks/changed_tile.py --shape smolvlm-500m [--bundle DIR] [--repeat 5]

Screens of 1080x2400 are noise in blocks, a new one for each round. Each is asked about, then a copy with other pixels
in one tile: the last one before the overview, or the first. ``one_tile_s`` is the tower's time for a new screen, shared
out among its tiles. Results are added to benchmarks/results/changed_tile.json by shape and engine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from rounds import circumstances, measuring  # noqa: E402
from shape_bundles import bundle_of  # noqa: E402

import edge_mllm  # noqa: E402
from edge_mllm.arrays import RgbArray  # noqa: E402

SIZE = (2400, 1080)
QUESTION = "What is new on this screen?"
WAYS = {"gguf": ("gguf", False), "onnx": ("onnx", False), "onnx, int8 prompt": ("onnx", True)}
PLACES = {"last": (SIZE[0] - 48, SIZE[1] - 48), "first": (16, 16)}
"""Top and left of the block of other pixels."""
TIMES = ("ttft_s", "preprocess_s", "vision_s", "prefill_s")


def screen(seed: int) -> RgbArray:
    """uint8 [2400, 1080, 3], so that no two tiles are equal."""
    small = np.random.default_rng(seed).integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
    return np.kron(small, np.ones((8, 8, 1), np.uint8))


def changed(picture: RgbArray, place: str) -> RgbArray:
    """A copy with a block of 32 x 32 other pixels."""
    top, left = PLACES[place]
    other = picture.copy()
    other[top : top + 32, left : left + 32] ^= 255
    return other


def asked(model: edge_mllm.Model, picture: RgbArray) -> dict[str, float]:
    answer = model.generate(QUESTION, picture, max_new_tokens=1)
    (shown,) = answer.images
    told = {name: float(getattr(answer.timings, name)) for name in TIMES}
    counts = {"tiles": shown.tiles, "tiles_reused": shown.tiles_reused}
    return {**told, **counts, "prompt_tokens": answer.usage.prompt_tokens, "reused_tokens": answer.usage.reused_tokens}


def measured(bundle: Path, way: str, given: argparse.Namespace) -> dict[str, Any]:
    """Medians of a new screen and of each change, and their shares."""
    engine, prompt = WAYS[way]
    samples: dict[str, list[dict[str, float]]] = {}
    with edge_mllm.load(bundle, engine=engine, threads=given.threads, prompt_weights=prompt, provider="cpu") as model:
        asked(model, screen(1000))
        for number in range(given.repeat):
            for place in PLACES:
                new = screen(2 * number + (place == "first"))
                samples.setdefault("new", []).append(asked(model, new))
                samples.setdefault(place, []).append(asked(model, changed(new, place)))
    found: dict[str, Any] = {
        name: {key: median(each[key] for each in several) for key in several[0]} for name, several in samples.items()
    }
    tile_s = found["new"]["vision_s"] / found["new"]["tiles"]
    for place in PLACES:
        computed = found[place]["tiles"] - found[place]["tiles_reused"]
        found[place]["tiles_computed"] = computed
        found[place]["ttft_share"] = found[place]["ttft_s"] / found["new"]["ttft_s"]
        found[place]["vision_over_its_tiles"] = found[place]["vision_s"] / (computed * tile_s)
    return {**found, "one_tile_s": tile_s, "samples": samples}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = measuring(__file__, __doc__, repeat=5)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--bundle", type=Path, help="of this shape, with prompt weights; made where it is missing")
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    given = parser.parse_args(arguments)
    bundle = given.bundle or bundle_of(given.shape, prompt_weights="int8")
    document = json.loads(given.out.read_text("utf-8")) if given.out.is_file() else {}
    ways = {way: measured(bundle, way, given) for way in given.ways}
    document[given.shape] = {
        **circumstances(bundle, threads=given.threads, repeat=given.repeat, peaks=False),
        "size": f"{SIZE[1]}x{SIZE[0]}",
        "ways": ways,
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    for way, found in ways.items():
        for place in PLACES:
            print(way, place, json.dumps(found[place]))


if __name__ == "__main__":
    main()
