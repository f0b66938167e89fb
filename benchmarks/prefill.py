"""Seconds of prefill for a tiled picture on both engines, by how the prompt is handed over.

    python benchmarks/prefill.py --bundle build/peers/smolvlm-500m/model.edge

The prompt has the form of a picture of 13 tiles (64 visual tokens each, marker tokens between them) and a question;
its embeddings are noise. Chunk sizes are tried in turns; for llama.cpp also one batch for every run of tokens or
embeddings (``apart``: what it takes without rows for the text, see ``edge_mllm/decoders/llama/token_rows.py``) and
as many tokens of text alone. Medians go to benchmarks/results/prefill.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rounds import circumstances, in_turns, measuring

from edge_mllm.bundle.files import OpenBundle
from edge_mllm.decoders.protocol import Decoder, Segment, Tokens, Visual
from edge_mllm.decoders.select import open_decoder
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.session.files import open_bundle

ROOT = Path(__file__).resolve().parents[1]
TILES, VISUAL, MARKERS, BEFORE, QUESTION = 13, 64, 4, 8, 25
CHUNKS = (512, 256, 128)
Way = Callable[[], dict[str, float]]


def prompt(bundle: OpenBundle) -> tuple[list[Segment], list[Segment]]:
    """The picture's part with what stands before it, and the question."""
    draw, spec = np.random.default_rng(0), bundle.spec.decoder

    def text(count: int) -> Tokens:
        return Tokens(draw.integers(0, spec.n_vocab, count))

    picture: list[Segment] = [text(BEFORE)]
    for _ in range(TILES):
        picture += [Visual(0.05 * draw.normal(size=(VISUAL, spec.n_embd)).astype(np.float32)), text(MARKERS)]
    return picture, [text(QUESTION)]


def timed(decoder: Decoder, *groups: list[Segment]) -> dict[str, float]:
    """Seconds of every group, into an empty cache."""
    decoder.truncate(0)
    found = {}
    for name, group in zip(("picture_s", "question_s"), groups, strict=True):
        start = time.perf_counter()
        decoder.prefill(group)
        found[name] = time.perf_counter() - start
    return found


def ways(bundle: OpenBundle, engine: Any, threads: int) -> dict[str, Way]:
    """Everything that is measured on one engine."""
    picture, question = prompt(bundle)
    words: list[Segment] = [Tokens(np.arange(BEFORE + TILES * (VISUAL + MARKERS)) % bundle.spec.decoder.n_vocab)]
    found: dict[str, Way] = {}
    for chunk in CHUNKS:
        decoder = open_decoder(bundle, engine, DecoderSettings(threads=threads, chunk=chunk))
        decoder.reserve(1024)
        decoder.embed(np.arange(3))
        found[f"chunk {chunk}"] = lambda decoder=decoder: timed(decoder, picture, question)  # type: ignore[misc]
        if chunk == CHUNKS[0]:
            found["text alone"] = lambda decoder=decoder: timed(decoder, words, question)  # type: ignore[misc]
            if engine == "gguf":
                found["apart"] = lambda decoder=decoder: apart(decoder, picture, question)  # type: ignore[misc]
    return found


def apart(decoder: Any, picture: list[Segment], question: list[Segment]) -> dict[str, float]:
    """The same without rows for the text."""
    rows, decoder._rows = decoder._rows, None
    try:
        return timed(decoder, picture, question)
    finally:
        decoder._rows = rows


def main() -> None:
    """Measure in turns, write, print."""
    parser = measuring(__file__, __doc__, repeat=3)
    parser.add_argument("--bundle", type=Path, required=True)
    given = parser.parse_args()
    bundle = open_bundle(given.bundle, check_hashes=False)
    found: dict[str, Any] = {}
    for engine in bundle.spec.engines:
        tried = ways(bundle, engine, given.threads)
        samples = in_turns(tried, given.repeat, warmup=0)
        medians = {
            name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
            for name, rounds in samples.items()
        }
        found[engine] = {"medians": medians, "samples": samples}
        for name, numbers in medians.items():
            told = f"picture {numbers['picture_s']:.3f} s, question {numbers['question_s']:.3f} s"
            print(f"{engine} {name}: {told}", flush=True)
    result = {
        "schema": "edge-mllm-prefill/1",
        **circumstances(given.bundle, threads=given.threads, repeat=given.repeat, peaks=False),
        "tokens": {"picture": BEFORE + TILES * (VISUAL + MARKERS), "visual": TILES * VISUAL, "question": QUESTION},
        "engines": found,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
