"""What prompt weights (``export --prompt-weights int8``) are worth and what they cost.

    python benchmarks/prompt_weights.py loss [CHECKPOINT] [--pages 60]
    python benchmarks/prompt_weights.py speed --bundle NAME.edge

``loss``: a calibrated 4-bit decoder with and without them, beside the checkpoint in float32: divergence along its own
answers to one question a held-out page, and every question about the same pages, exact match; both on the checkpoint's
visual embeddings. Drawing the pages takes the fonts that starter/fonts.py lists. ``speed``: prefill of random token ids
with and without them, in turns, in runs of several lengths; where they begin to pay; resident memory of processes of
their own. Each part goes to its own section of benchmarks/results/prompt_weights.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rounds import measuring, own_process

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edge_mllm.decoders.ort import prompt as ort_prompt  # noqa: E402
from edge_mllm.decoders.protocol import Decoder, Tokens  # noqa: E402
from edge_mllm.decoders.select import open_decoder  # noqa: E402
from edge_mllm.decoders.settings import DecoderSettings, PromptWeights  # noqa: E402
from edge_mllm.machine.fingerprint import fingerprint, model_files  # noqa: E402
from edge_mllm.machine.memory import AnonymousPeak, peak_rss_bytes  # noqa: E402
from edge_mllm.session.files import open_bundle  # noqa: E402

LENGTHS = (128, 512, 892)
CHUNKS = (256, 512, 128, 1024)
"""Most tokens of a run of the prompt graph, the usual number first; decoder.onnx has runs of 512."""
SHORT = (4, 8, 16, 32, 64)
"""Lengths among which they begin to pay."""


class Seen:
    """The checkpoint's own visual embeddings, page by page, where a tower's are asked for."""

    def __init__(self, pages: list[Any]) -> None:
        self._pages = pages

    def page(self, number: int) -> Any:
        """float32 [visual tokens, n_embd]."""
        return self._pages[number]


def loss(given: argparse.Namespace) -> dict[str, Any]:
    """Divergence and right answers, with and without."""
    from benchmarks.quantisation import divergence, share
    from benchmarks.quantisation_material import Material

    with TemporaryDirectory() as scratch:
        material = Material(given.source, given.pages, given.threads, Path(scratch))
        folder, _ = material.onnx("ours")
        ways = {"without": False, "with": True}
        sums = {name: divergence(material.ort(folder, prompt=way), material) for name, way in ways.items()}
        tower = Seen([answer.visual for answer in material.answers])
        right = {name: material.bundle_answers(material.ort(folder, prompt=way), tower) for name, way in ways.items()}
    return {
        "checkpoint_sha256": material.sha256,
        "pages": given.pages,
        "positions": sums["with"]["positions"],
        "kl": {name: float(np.sum(found["kl"]) / found["positions"]) for name, found in sums.items()},
        "top1": {name: found["top1"] for name, found in sums.items()},
        "kl_with_over_without": share(*(np.array(sums[name]["kl"]) for name in ("with", "without"))),
        "questions": len(right["with"]),
        "right": {name: sum(found) for name, found in right.items()},
        "answered_otherwise": int(np.sum(np.array(right["with"]) != np.array(right["without"]))),
    }


def speed(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of prefill and bytes of memory, with and without."""
    ways: dict[str, Decoder] = {"without": _decoder(given, "off")}
    ways |= {f"with, runs of {chunk}": _decoder(given, "keep", chunk) for chunk in CHUNKS}
    long = {str(length): _in_turns(ways, length, given.repeat) for length in LENGTHS}
    pair = {name: ways[name] for name in ("without", f"with, runs of {CHUNKS[0]}")}
    usual = ort_prompt.LEAST_RUN
    ort_prompt.LEAST_RUN = 1
    short = {str(length): _in_turns(pair, length, 3 * given.repeat) for length in SHORT}
    ort_prompt.LEAST_RUN = usual
    for decoder in ways.values():
        decoder.close()
    bundle = open_bundle(given.bundle, check_hashes=False)
    return {
        "model": bundle.spec.source.id,
        "bundle_sha256": model_files(given.bundle).sha256,
        "threads": given.threads,
        "repeat": given.repeat,
        "part_bytes": {name: part.bytes for name, part in bundle.spec.parts.items() if "onnx" in name},
        "median_s": long,
        "median_s_short": short,
        "least_run": usual,
        "memory": {way: _memory(given, way) for way in ("off", "keep", "free")},
    }


def _decoder(given: argparse.Namespace, way: PromptWeights, chunk: int = CHUNKS[0]) -> Decoder:
    ort_prompt.RUN = chunk
    settings = DecoderSettings(threads=given.threads, chunk=max(chunk, DecoderSettings.chunk), prompt_weights=way)
    decoder = open_decoder(open_bundle(given.bundle, check_hashes=False), "onnx", settings)
    decoder.reserve(max(LENGTHS) + 64)
    decoder.warm(max(LENGTHS))
    return decoder


def _in_turns(ways: dict[str, Decoder], length: int, repeat: int) -> dict[str, float]:
    """Median seconds of each way; the first round does not count."""
    ids = np.random.default_rng(length).integers(0, min(decoder.n_vocab for decoder in ways.values()), length)
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat + 1):
        for name, decoder in ways.items():
            decoder.truncate(0)
            start = time.perf_counter()
            decoder.prefill([Tokens(ids)])
            samples[name].append(time.perf_counter() - start)
    found = {name: statistics.median(times[1:]) for name, times in samples.items()}
    told = ", ".join(f"{name} {length / seconds:.0f}" for name, seconds in found.items())
    print(f"{length} tokens, tokens/s: {told}", flush=True)
    return found


def _memory(given: argparse.Namespace, way: str) -> dict[str, Any]:
    """Of a process that prefills the longest prompt and takes 16 steps."""
    common = ("--bundle", given.bundle, "--threads", given.threads)
    found: dict[str, Any] = own_process(__file__, "memory", *common, "--way", way)
    print(way, found, flush=True)
    return found


def memory(given: argparse.Namespace) -> dict[str, Any]:
    """The child's part of :func:`_memory`."""
    start, peak = time.perf_counter(), AnonymousPeak()
    decoder = _decoder(given, given.way)
    opened = time.perf_counter() - start
    decoder.prefill([Tokens(np.arange(max(LENGTHS)) % decoder.n_vocab)])
    peak.note()
    for token in range(16):
        decoder.step(token)
    peak.note()
    return {"opened_s": opened, "peak_rss_bytes": peak_rss_bytes(), "peak_anonymous_bytes": peak.bytes}


def main() -> None:
    """Measure one part, write its section."""
    parser = measuring(__file__, __doc__, repeat=3)
    parser.add_argument("part", choices=("loss", "speed", "memory"))
    parser.add_argument("source", nargs="?", default=str(ROOT / "starter" / "checkpoint"))
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--pages", type=int, default=60)
    parser.add_argument("--way", default="keep")
    given = parser.parse_args()
    found = {"loss": loss, "speed": speed, "memory": memory}[given.part](given)
    if given.part == "memory":
        print(json.dumps(found))
        return
    found["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    found["machine"] = dataclasses.asdict(fingerprint(threads=given.threads, peaks=False))
    before = json.loads(given.out.read_text()) if given.out.exists() else {"schema": "edge-mllm-prompt-weights/1"}
    given.out.write_text(json.dumps(before | {given.part: found}, indent=1) + "\n")
    if given.part == "loss":
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
