"""What prompt lookup gives: tokens per second of the same answers with and without guesses, in turns.

    python benchmarks/prompt_lookup.py --bundle build/peers/smolvlm-500m/model.edge

A model with random weights copies nothing by itself, so its answers are held to a text: one that stands in the prompt
(``copy``: the most that can be won), the same with every third word another one (``changed``), and one that does not
stand there (``other``: what guessing costs where it cannot help). Every token is still computed and chosen as in any
answer. ``reading`` asks the starter about its own kind of pages, unheld. Results go to
benchmarks/results/prompt_lookup.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rounds import measuring

import edge_mllm
from edge_mllm import GenerateOptions
from edge_mllm.arrays import FloatArray
from edge_mllm.machine.fingerprint import fingerprint, model_files

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("total", "date", "price", "sign", "door", "street", "number", "train", "hour", "paper", "river", "bread")
HELDOUT = ROOT / "starter" / "heldout"
"""Pages of the starter's evaluation that lie in the checkout, with their questions."""


class Held:
    """Lets one token through: the next one of a text."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids

    def __call__(self, logits: FloatArray, generated: Sequence[int]) -> FloatArray:
        """See :class:`edge_mllm.answer.decoding.sampling.LogitsProcessor`."""
        masked = np.full_like(logits, -np.inf)
        masked[self.ids[len(generated)]] = 0.0
        return masked


def cases(words: int) -> dict[str, tuple[str, str]]:
    """Prompt and answer of every case."""
    draw = np.random.default_rng(0)
    text = [str(draw.choice(WORDS)) + str(draw.integers(100)) for _ in range(words)]
    changed = [word if place % 3 else str(draw.choice(WORDS)) for place, word in enumerate(text)]
    other = [str(draw.choice(WORDS)) + str(draw.integers(100)) for _ in range(words)]
    prompt = "Copy this text: " + " ".join(text)
    return {name: (prompt, " ".join(each)) for name, each in {"copy": text, "changed": changed, "other": other}.items()}


def ask(model: edge_mllm.Model, prompt: str, answer: str, lookup: int) -> dict[str, Any]:
    """One answer held to a text."""
    ids = model.reader.tokenizer.encode(" " + answer).ids  # type: ignore[attr-defined]
    request = GenerateOptions(max_new_tokens=len(ids), ignore_eos=True, processors=(Held(ids),), prompt_lookup=lookup)
    found = model.chat().ask(prompt, **request)
    return {"tps": found.timings.decode_tps, "usage": found.usage}


def held(bundle: Path, engine: str, given: argparse.Namespace) -> dict[str, Any]:
    """All cases of one engine."""
    found: dict[str, Any] = {}
    with edge_mllm.load(bundle, engine=engine, threads=given.threads) as model:
        for name, (prompt, answer) in cases(given.words).items():
            series: dict[int, list[float]] = {0: [], given.lookup: []}
            for number in range(given.repeat + 1):
                for lookup in series if number % 2 else reversed(series):
                    reply = ask(model, prompt, answer, lookup)
                    if number:
                        series[lookup].append(reply["tps"])
                    if lookup:
                        usage = reply["usage"]
            plain, guessing = (statistics.median(values) for values in series.values())
            found[name] = {
                "plain_tps": plain,
                "guessing_tps": guessing,
                "ratio": guessing / plain,
                "answer_tokens": usage.completion_tokens,
                "guessed_tokens": usage.guessed_tokens,
                "right_tokens": usage.right_tokens,
                "samples": list(series.values()),
            }
    return found


def reading(engine: str, given: argparse.Namespace) -> dict[str, Any]:
    """The starter's own answers about pages."""
    entries = json.loads((HELDOUT / "questions.json").read_text())
    seconds, usages, same = {0: 0.0, given.lookup: 0.0}, [], 0
    with edge_mllm.load(engine=engine, threads=given.threads) as model:
        for number, entry in enumerate(entries):
            texts = {}
            for lookup in seconds if number % 2 else reversed(seconds):
                picture = HELDOUT / entry["image"]
                answer = model.generate(entry["question"], [picture], max_new_tokens=64, prompt_lookup=lookup)
                seconds[lookup] += answer.timings.decode_s
                texts[lookup] = answer.text
                if lookup:
                    usages.append(answer.usage)
            same += len(set(texts.values())) == 1
    plain, guessing = seconds.values()
    return {
        "questions": len(entries),
        "equal_answers": same,
        "ratio": plain / guessing,
        "answer_tokens": sum(usage.completion_tokens for usage in usages),
        "guessed_tokens": sum(usage.guessed_tokens or 0 for usage in usages),
        "right_tokens": sum(usage.right_tokens or 0 for usage in usages),
    }


def main() -> None:
    """Measure, write, print."""
    parser = measuring(__file__, __doc__, repeat=3)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--lookup", type=int, default=8)
    parser.add_argument("--words", type=int, default=40)
    given = parser.parse_args()
    found = {}
    for engine in ("gguf", "onnx"):
        found[engine] = {**held(given.bundle, engine, given), "reading": reading(engine, given)}
        for name, numbers in found[engine].items():
            told = f"{numbers['right_tokens']} of {numbers['guessed_tokens']} guesses right"
            print(f"{engine} {name}: {numbers['ratio']:.2f} of the speed without, {told}")
    result = {
        "schema": "edge-mllm-prompt-lookup/1",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle_sha256": model_files(given.bundle).sha256,
        "threads": given.threads,
        "lookup": given.lookup,
        "repeat": given.repeat,
        "machine": dataclasses.asdict(fingerprint(threads=given.threads, peaks=False)),
        "engines": found,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
