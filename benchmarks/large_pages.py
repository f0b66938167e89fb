"""What large pages give an answer: tokens per second with and without, two processes in turns on one machine.

    python benchmarks/large_pages.py --bundle build/plan/smolvlm-500m.edge

Every engine has one process with its memory collapsed into large pages (:mod:`edge_mllm.machine.large_pages`) and
one without; both hold the same prompt and answer in turns, so that a machine that slows down slows both. Medians,
what moved and how long it took go to benchmarks/results/large_pages.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from rounds import measuring, when_and_where

from edge_mllm.measure.bench.measure import describe_model

ROOT = Path(__file__).resolve().parents[1]
THP = Path("/sys/kernel/mm/transparent_hugepage")
_WORKER = """
import json, sys, edge_mllm
from edge_mllm.machine.large_pages import collapse_resident
from edge_mllm.measure.bench.memory import resident
bundle, engine, threads, words, tokens, large = json.loads(sys.argv[1])
model = edge_mllm.load(bundle, engine=engine, threads=threads)
before = resident()
moved = collapse_resident() if large else None
after = resident()
report = {"resident": before.rss, "resident_after": after.rss, "anonymous": before.anonymous}
report |= {"moved": None if moved is None else [moved.bytes, moved.seconds]}
print(json.dumps(report), flush=True)
for number, line in enumerate(sys.stdin):
    answer = model.generate(f"{number} " + "word " * words, max_new_tokens=tokens, ignore_eos=True)
    timings = answer.timings
    print(json.dumps([timings.prefill_tps, timings.decode_tps, answer.usage.prompt_tokens]), flush=True)
"""


class Worker:
    """One process with a loaded model."""

    def __init__(self, given: argparse.Namespace, engine: str, large: bool) -> None:
        question = [str(given.bundle), engine, given.threads, given.words, given.tokens, large]
        command = [sys.executable, "-c", _WORKER, json.dumps(question)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.memory: dict[str, Any] = self._read()
        self.samples: list[list[float]] = []

    def ask(self, *, keep: bool) -> None:
        """One answer."""
        print(file=self._process.stdin, flush=True)
        sample = self._read()
        if keep:
            self.samples.append(sample)

    def end(self) -> dict[str, Any]:
        """Stop the process and sum up."""
        self._process.communicate()
        prefill, decode, prompt = (median(column) for column in zip(*self.samples, strict=True))
        return self.memory | {
            "prefill_tps": prefill,
            "decode_tps": decode,
            "prompt_tokens": int(prompt),
            "samples": self.samples,
        }

    def _read(self) -> Any:
        return json.loads(next(iter(self._process.stdout or ())))


def main() -> None:
    """Measure both engines and write."""
    given = _arguments()
    engines = {engine: compare(given, engine) for engine in given.engines.split(",")}
    result = {
        "schema": "edge-mllm-large-pages/1",
        **when_and_where("created", threads=given.threads, peaks=True),
        "kernel_settings": {name: (THP / name).read_text().strip() for name in ("enabled", "defrag")},
        "model": dataclasses.asdict(describe_model(str(given.bundle))),
        "threads": given.threads,
        "answer_tokens": given.tokens,
        "engines": engines,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for engine, found in engines.items():
        print(engine, json.dumps(found["large_over_small"]), json.dumps(found["large"]["moved"]))


def compare(given: argparse.Namespace, engine: str) -> dict[str, Any]:
    """One engine with and without, in turns."""
    workers = {name: Worker(given, engine, name == "large") for name in ("small", "large")}
    for number in range(given.rounds + 1):
        order = list(workers.values())
        for worker in order if number % 2 else reversed(order):
            worker.ask(keep=number > 0)
    found: dict[str, Any] = {name: worker.end() for name, worker in workers.items()}
    speeds = ("prefill_tps", "decode_tps")
    found["large_over_small"] = {name: found["large"][name] / found["small"][name] for name in speeds}
    return found


def _arguments() -> argparse.Namespace:
    parser = measuring(__file__, __doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--engines", default="onnx,gguf")
    parser.add_argument("--words", type=int, default=480, help="about so many tokens before the answer")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    main()
