"""What a llama.cpp built for any processor loses against one built for this processor: tokens per second, in turns.

    python benchmarks/generic_build.py --other OTHER_VENV/bin/python --bundle build/plan/smolvlm-256m.edge

The other interpreter has the same llama-cpp-python, built for example with
``CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX=OFF -DGGML_AVX2=OFF -DGGML_FMA=OFF -DGGML_F16C=OFF -DGGML_BMI2=OFF"``, and
this project. Every round asks both, each in a process of its own, the same question of text alone. Medians and ratios
go to benchmarks/results/generic_build.json; the sentence that ``edge-mllm doctor`` prints about such a build rests on
them.
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
SPEEDS = ("prefill_tps", "decode_tps")
_LOOK = """
import dataclasses, json
from edge_mllm.measure.doctor.gathering import gather_facts
facts = gather_facts()
build = dataclasses.asdict(facts.llama)
print(json.dumps(build | {"features": sorted(build["features"])}))
"""
_ASK = """
import json, sys, edge_mllm
bundle, prompt, tokens, threads, repeat = json.loads(sys.argv[1])
with edge_mllm.load(bundle, engine="gguf", threads=threads) as model:
    model.generate("Hello", max_new_tokens=2, ignore_eos=True)
    for number in range(repeat):
        answer = model.generate(f"{number} {prompt}", max_new_tokens=tokens, ignore_eos=True)
        timings = answer.timings
        print(json.dumps([answer.usage.prompt_tokens, timings.prefill_tps, timings.decode_tps]), flush=True)
"""


def main() -> None:
    """Ask both builds in turns and write what they did."""
    given = _arguments()
    pythons = {"native": sys.executable, "generic": str(given.other)}
    builds = {name: json.loads(_run(python, _LOOK)[0]) for name, python in pythons.items()}
    samples: dict[str, list[list[float]]] = {name: [] for name in pythons}
    prompt = "word " * given.prompt_words
    for _ in range(given.rounds):
        for name, python in pythons.items():
            question = [str(given.bundle), prompt, given.answer_tokens, given.threads, given.repeat]
            samples[name] += [json.loads(line) for line in _run(python, _ASK, json.dumps(question))]
    speeds = {name: dict(zip(SPEEDS, _medians(found), strict=True)) for name, found in samples.items()}
    ratios = {speed: speeds["native"][speed] / speeds["generic"][speed] for speed in SPEEDS}
    result = {
        "schema": "edge-mllm-generic-build/1",
        **when_and_where("created", threads=given.threads, peaks=True),
        "model": dataclasses.asdict(describe_model(str(given.bundle))),
        "prompt_tokens": int(samples["native"][0][0]),
        "answer_tokens": given.answer_tokens,
        "threads": given.threads,
        "builds": builds,
        "speeds": speeds,
        "native_over_generic": ratios,
        "samples": samples,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({"speeds": speeds, "native_over_generic": ratios}, indent=1))


def _arguments() -> argparse.Namespace:
    parser = measuring(__file__, __doc__)
    parser.add_argument("--other", type=Path, required=True, help="python of an environment with the generic build")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--prompt-words", type=int, default=128)
    parser.add_argument("--answer-tokens", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=2, help="answers of one process")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _run(python: str, code: str, *arguments: str) -> list[str]:
    done = subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.splitlines()


def _medians(samples: list[list[float]]) -> list[Any]:
    return [median(sample[column] for sample in samples) for column in (1, 2)]


if __name__ == "__main__":
    main()
