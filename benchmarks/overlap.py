"""First tokens while the tower is apart from the processor, with a tower that sleeps: beside the decoder or before it.

    python benchmarks/overlap.py --bundle DIR [--tile-ms 300] [--rounds 3] [--size 1080x2400] [--pictures 1]

A tile takes the time that is given and no processor, as an NPU keeps a thread waiting; its embeddings are noise that
follows from its pixels. Beside: the decoder computes what is there, in the same runs as ever. Before: the same model,
told that the tower is not apart. Both take turns; medians are given, and whether the decoder's cache is the same bit
for bit. Cases are added to benchmarks/results/overlap.json by bundle, engine and pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from rounds import measuring, when_and_where  # noqa: E402

import edge_mllm  # noqa: E402
from edge_mllm.bundle.files import OpenBundle, read_bundle  # noqa: E402
from edge_mllm.tower.engines import Port  # noqa: E402
from edge_mllm.tower.npu.rknn import ports, shapes  # noqa: E402
from edge_mllm.tower.placement import Placement  # noqa: E402
from edge_mllm.tower.tower import VisionTower  # noqa: E402

WAYS = ("beside", "before")


@dataclass(frozen=True)
class Sleeper:
    """A tower's session that takes time and no processor."""

    bundle: OpenBundle
    tile_s: float

    def open(self) -> Sleeper:
        """As a place of an NPU."""
        return self

    def get_inputs(self) -> list[Port]:
        """The pixels, with a free first axis."""
        return [
            Port(name, kind, ["tiles", *shape[1:]])
            for name, kind, shape in ports(*shapes(self.bundle.spec, 1))["inputs"]
        ]

    def get_outputs(self) -> list[Port]:
        """The embeddings, likewise."""
        return [
            Port(name, kind, ["tiles", *shape[1:]])
            for name, kind, shape in ports(*shapes(self.bundle.spec, 1))["outputs"]
        ]

    def run(self, names: list[str], feeds: dict[str, Any]) -> list[Any]:  # noqa: ARG002 - as sessions have it
        """Noise, after a while."""
        end = time.perf_counter() + self.tile_s
        seed = int.from_bytes(hashlib.sha256(feeds["pixels"].tobytes()).digest()[:8], "little")
        shape = (1, *self.get_outputs()[0].shape[1:])
        rows = np.random.default_rng(seed).standard_normal(shape, np.float32)  # type: ignore[arg-type]
        time.sleep(max(0.0, end - time.perf_counter()))
        return [rows]


class Before(VisionTower):
    """The same tower, for which the decoder waits."""

    apart = False  # type: ignore[assignment]


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    """Noise in blocks, so that no two tiles are equal."""
    small = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.NEAREST)


def measured(given: argparse.Namespace, engine: str) -> dict[str, Any]:
    bundle = read_bundle(given.bundle)
    place = Placement("qnn", npu=Sleeper(bundle, given.tile_ms / 1000))  # type: ignore[arg-type]
    width, height = map(int, given.size.split("x"))
    shown = [picture((width, height), seed) for seed in range(given.pictures)]
    spent: dict[str, list[Any]] = {name: [] for name in WAYS}
    states: dict[str, Any] = {}
    options: dict[str, Any] = {"engine": engine, "threads": given.threads, "cache_bytes": 0, "provider": "cpu"}
    with edge_mllm.load(given.bundle, **options) as model:
        encoder, decoder = model.pipeline.parts.encoder, model.pipeline.parts.decoder
        file, spec = bundle.file("vision"), bundle.spec
        towers = {
            name: kind(file, spec.vision, spec.decoder.row_width, threads=1, place=place)
            for name, kind in zip(WAYS, (VisionTower, Before), strict=True)
        }
        assert [towers[name].apart for name in WAYS] == [True, False]  # noqa: S101 - or nothing is compared
        empty = decoder.state()
        model.generate("What is this?", max_new_tokens=1)  # what is made once
        for _ in range(given.rounds):
            for name in WAYS:
                encoder.tower = towers[name]
                model.pipeline.adopt((), empty)
                answer = model.generate("What do they show?", shown, max_new_tokens=1)
                spent[name].append(answer.timings)
                states[name] = decoder.state().arrays
    same = all(np.array_equal(a, b) for a, b in zip(*(states[name] for name in WAYS), strict=True))
    return {
        "bundle": bundle.spec.name,
        "engine": engine,
        "pictures": given.pictures,
        "size": given.size,
        "tiles": sum(image.tiles for image in answer.images),
        "prompt_tokens": answer.usage.prompt_tokens,
        "tile_s": given.tile_ms / 1000,
        "threads": given.threads,
        "rounds": given.rounds,
        **{
            name: {
                key: median(getattr(each, key) for each in timings)
                for key in ("ttft_s", "preprocess_s", "vision_s", "prefill_s")
            }
            for name, timings in spent.items()
        },
        "same_cache": same,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = measuring(__file__, __doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--engines", nargs="*", default=["gguf", "onnx"])
    parser.add_argument("--tile-ms", type=float, default=300.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="1080x2400")
    parser.add_argument("--pictures", type=int, default=1)
    given = parser.parse_args(arguments)
    kept = json.loads(given.out.read_text())["cases"] if given.out.is_file() else []
    cases = {(each["bundle"], each["engine"], each["pictures"]): each for each in kept}
    for engine in given.engines:
        found = measured(given, engine)
        cases[found["bundle"], engine, given.pictures] = found
        print(json.dumps(found), flush=True)
    document = {
        "cases": list(cases.values()),
        **when_and_where(),
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
