"""What llama.cpp's cache costs: prefill and decoding speed by its precision, with and without flash attention.

    python benchmarks/cache_type.py --bundle build/peers/smolvlm-500m/model.edge

Ways take turns; medians go to benchmarks/results/cache_type.json. Decoding is timed right after a prompt of each
length. A cache in single precision is used without flash attention, as ``--kv-type f32`` does.
"""

from __future__ import annotations

import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rounds import circumstances, in_turns, measuring

from edge_mllm.decoders.llama.decoder import LlamaDecoder
from edge_mllm.decoders.protocol import Tokens
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.session.files import open_bundle

ROOT = Path(__file__).resolve().parents[1]
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "f16, no flash attention": {"flash_attention": False},
    "f32": {"kv_type": "f32"},
    "f32, 256 tokens at once": {"kv_type": "f32", "chunk": 256},
    "q8_0": {"kv_type": "q8_0", "flash_attention": True},
}
STEPS = 24


def main() -> None:
    """Measure in turns, write, print."""
    parser = measuring(__file__, __doc__, repeat=3)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--lengths", type=int, nargs="*", default=[150, 900])
    given = parser.parse_args()
    bundle = open_bundle(given.bundle, check_hashes=False)
    decoders = {
        name: LlamaDecoder(
            bundle.file("decoder_gguf"), bundle.spec.decoder, DecoderSettings(threads=given.threads, **way)
        )
        for name, way in WAYS.items()
    }
    found = {str(length): measure(decoders, length, given.repeat) for length in given.lengths}
    result = {
        "schema": "edge-mllm-cache-type/1",
        **circumstances(given.bundle, threads=given.threads, repeat=given.repeat),
        "prompt_tokens": found,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for length, ways in found.items():
        for name, numbers in ways.items():
            print(f"{length} {name}: {numbers['prefill_tps']:.0f} and {numbers['decode_tps']:.1f} tokens/s")


def measure(decoders: dict[str, LlamaDecoder], length: int, repeat: int) -> dict[str, dict[str, Any]]:
    """Every way's speeds; ratios are to the first."""
    table: dict[str, dict[str, Any]] = {}
    for name, samples in in_turns(
        {name: partial(_once, each, length) for name, each in decoders.items()}, repeat
    ).items():
        prefill, decode = (statistics.median(values) for values in zip(*samples, strict=True))
        table[name] = {"prefill_tps": prefill, "decode_tps": decode, "samples": samples}
    first = next(iter(table.values()))
    for numbers in table.values():
        numbers |= {f"{key}_ratio": numbers[key] / first[key] for key in ("prefill_tps", "decode_tps")}
    return table


def _once(decoder: LlamaDecoder, length: int) -> tuple[float, float]:
    """Tokens per second of prefill and of decoding."""
    decoder.truncate(0)
    decoder.reserve(length + STEPS + 1)
    ids = np.arange(length) % decoder.n_vocab
    start = time.perf_counter()
    decoder.prefill([Tokens(ids)])
    prefill = time.perf_counter() - start
    decoder.step(0)
    start = time.perf_counter()
    for _ in range(STEPS):
        decoder.step(0)
    return length / prefill, STEPS / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
