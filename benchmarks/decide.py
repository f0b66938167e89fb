"""What ten questions with given options about one picture take, beside the first token of one answer about one.

    python benchmarks/decide.py [--bundle DIR]

Every round draws pictures nobody saw. One is asked about with ``generate``: its time to the first token is what the
others are measured by. The next ones are asked ten questions each, with options of one word, with options of several
words, and with options as beginnings. Rounds take the engines in turns. Medians and shares go to
benchmarks/results/decide.json; without ``--bundle`` the shape of SmolVLM-500M is exported first.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rounds import measuring, when_and_where
from shape_bundles import bundle_of

import edge_mllm
from edge_mllm.machine.fingerprint import model_files
from edge_mllm.measure.bench.cases import parse_size

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = (
    "Is a person at the door?",
    "Is the door open?",
    "Is it dark outside?",
    "Is there a parcel on the ground?",
    "Is a car parked in front of the house?",
    "Is it raining?",
    "Is there an animal?",
    "Does the person wear a helmet?",
    "Is the light above the door on?",
    "Is something blocking the camera?",
)
WORDS = ("yes", "no")
PHRASES = ("a person with a parcel", "a person without a parcel", "an animal", "nobody")
CASES: dict[str, tuple[Sequence[str], bool]] = {
    "words": (WORDS, True),
    "phrases": (PHRASES, True),
    "beginnings": (WORDS, False),
}


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    """Smooth noise."""
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


def one_round(model: edge_mllm.Model, size: tuple[int, int], number: int) -> dict[str, Any]:
    """First token of an answer, and ten decisions of every case, each about a picture of its own."""
    answer = model.generate(QUESTIONS[0], picture(size, 10 * number), max_new_tokens=1, ignore_eos=True)
    found: dict[str, Any] = {"first_token_s": answer.timings.ttft_s}
    for place, (name, (options, whole)) in enumerate(CASES.items(), 1):
        asked = [(question, options) for question in QUESTIONS]
        decisions = list(model.decide_each(asked, picture(size, 10 * number + place), whole=whole))
        seconds = [each.timings.total_s for each in decisions]
        found[name] = {
            "ten_s": sum(seconds),
            "first_s": seconds[0],
            "ms_a_question_after": 1e3 * statistics.fmean(seconds[1:]),
            "share_of_first_token": sum(seconds) / answer.timings.ttft_s,
            "runs": sum(each.usage.option_runs for each in decisions),
            "prompt_tokens": decisions[0].usage.prompt_tokens,
            "image_tokens": decisions[0].usage.image_tokens,
        }
    return found


def medians(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of every figure."""
    found: dict[str, Any] = {"first_token_s": statistics.median(each["first_token_s"] for each in rounds)}
    for name in CASES:
        found[name] = {key: statistics.median(each[name][key] for each in rounds) for key in rounds[0][name]}
    return found


def main() -> None:
    parser = measuring(__file__, __doc__, repeat=3)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--engines", default="onnx,gguf")
    parser.add_argument("--size", default="1024x768")
    given = parser.parse_args()
    bundle, size = given.bundle or bundle_of("smolvlm-500m"), parse_size(given.size)
    models = {name: edge_mllm.load(bundle, engine=name, threads=given.threads) for name in given.engines.split(",")}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    for model in models.values():  # tower and decoder are loaded, their files warm
        model.generate(QUESTIONS[0], picture((64, 64), 0), max_new_tokens=1, ignore_eos=True, detail="low")
    for number in range(1, given.repeat + 1):
        for name, model in models.items():
            rounds[name].append(one_round(model, size, number))
            print(name, json.dumps(rounds[name][-1]), flush=True)
    result = {
        "schema": "edge-mllm-decide/1",
        **when_and_where(threads=given.threads),
        "bundle": bundle.name,
        "bundle_sha256": model_files(bundle).sha256,
        "size": given.size,
        "threads": given.threads,
        "questions": len(QUESTIONS),
        "options": {name: {"options": list(options), "whole": whole} for name, (options, whole) in CASES.items()},
        "engines": {name: medians(found) for name, found in rounds.items()},
        "samples": rounds,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
