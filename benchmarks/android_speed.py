"""The phone's code on the JVM beside the Python runtime, both with the same ONNX Runtime, answers in turns.

    python benchmarks/android_speed.py [--bundle DIR ...] [--repeat 20]

Both read the same PNG files, ask the same question and answer with as many tokens; ``equal_texts`` counts rounds with
equal answers. Ratios are of medians over paired rounds, JVM to Python. The picture's decoding is left out of
``first_token``: on a phone it is the system's; ``first_token_with_picture`` has it. ``other_cores`` says what other
programs kept busy meanwhile. The result goes to benchmarks/results/android_speed.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from rounds import circumstances, in_turns

from edge_mllm.machine.others import OtherWork
from edge_mllm.machine.threads import default_threads
from edge_mllm.measure.bench.cases import parse_size, sample_picture
from edge_mllm.measure.bench.stats import ratio_of_medians, summarise

ROOT = Path(__file__).resolve().parents[1]
ORT = ROOT / "build" / "android" / "onnxruntime-1.26.0"
RESULT = ROOT / "benchmarks" / "results" / "android_speed.json"
WARMUP = 5
"""The JVM compiles while it runs; a phone's system does so when an app is installed."""


class Process:
    """A program that answers an object a line."""

    def __init__(self, command: list[Any], environment: dict[str, str]) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen([*map(str, command)], env=os.environ | environment, text=True, **pipes)
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the program has no pipes")
        self._process, self._in, self._out = process, process.stdin, process.stdout

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The document of an answer, as ``run --json`` prints it."""
        self._in.write(json.dumps(question) + "\n")
        self._in.flush()
        reply: dict[str, Any] = json.loads(self._out.readline())
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    def close(self) -> None:
        """End it."""
        self._in.close()
        self._process.wait(60)
        self._out.close()


def serve() -> None:
    """The Python side: answer lines until there are no more."""
    import edge_mllm

    models: dict[str, Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["bundle"] not in models:
            models[asked["bundle"]] = edge_mllm.load(asked["bundle"], engine="onnx", threads=asked["threads"])
        options = {"max_new_tokens": asked["max_new_tokens"], "ignore_eos": True}
        answer = models[asked["bundle"]].generate(asked["prompt"], asked["images"], **options)
        print(json.dumps(answer.to_dict()), flush=True)


def metrics(answer: dict[str, Any]) -> dict[str, float]:
    """Seconds of one answer, and tokens a second."""
    times = answer["timings"]
    return {
        "first_token": times["ttft_s"] - times["picture_s"],
        "first_token_with_picture": times["ttft_s"],
        "tiling": times["preprocess_s"] - times["picture_s"],
        "vision": times["vision_s"],
        "prefill": times["prefill_s"],
        "decode": times["decode_s"],
    }


def measure(bundle: Path, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One bundle: rounds in which both answer the same question about the same picture."""
    others, load = OtherWork(), os.getloadavg()[0]
    path = os.pathsep.join([str(ORT / "python"), str(ROOT)])
    ways = {
        "python": Process([sys.executable, __file__, "--serve"], {"PYTHONPATH": path}),
        "jvm": Process([ROOT / "android_demo" / "core.sh", "lines"], {}),
    }
    width, height = parse_size(given.image_size)
    numbers = {name: 0 for name in ways}

    def answer(name: str) -> dict[str, Any]:
        numbers[name] += 1
        file = folder / f"{bundle.stem}-{numbers[name]}.png"
        if not file.exists():
            Image.open(io.BytesIO(sample_picture(width, height, 1000 * numbers[name]))).save(file)
        question = {"do": "run", "bundle": str(bundle), "images": [str(file)], "threads": given.threads}
        question |= {"prompt": f"{numbers[name]} What does it say?", "max_new_tokens": given.answer_tokens}
        return ways[name].ask(question | {"ignores_end": True})

    found = in_turns({name: lambda name=name: answer(name) for name in ways}, given.repeat, warmup=WARMUP)
    for process in ways.values():
        process.close()  # what ended counts as ours, not as another program
    pairs = list(zip(found["python"], found["jvm"], strict=True))
    series = {name: [metrics(each) for each in answers] for name, answers in found.items()}
    names = list(series["jvm"][0])
    return {
        **circumstances(bundle, threads=given.threads, repeat=given.repeat, peaks=False),
        "usage": found["jvm"][-1]["usage"],
        "equal_texts": sum(one["text"] == other["text"] for one, other in pairs),
        "load_before": round(load, 2),
        "other_cores": others.cores(),
        "medians": {
            way: {n: summarise([row[n] for row in rows]).median for n in names} for way, rows in series.items()
        },
        "ratios": {
            name: dataclasses.asdict(
                ratio_of_medians([row[name] for row in series["python"]], [row[name] for row in series["jvm"]])
            )
            for name in names
        },
    }


def main() -> None:
    """Measure in turns, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--image-size", default="1024x768")
    parser.add_argument("--answer-tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return
    bundles = given.bundle or [ROOT / "edge_mllm" / "starter.edge"]
    with tempfile.TemporaryDirectory() as folder:
        rows = {bundle.stem: measure(bundle, given, Path(folder)) for bundle in bundles}
    result = {"schema": "edge-mllm-android-speed/1", "onnxruntime": "1.26.0", "bundles": rows}
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, row in rows.items():
        shown = {key: round(value["ratio"], 3) for key, value in row["ratios"].items()}
        print(f"{name}: {shown}, {row['equal_texts']} of {given.repeat} texts equal, others {row['other_cores']:.2f}")


if __name__ == "__main__":
    main()
