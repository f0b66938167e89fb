"""Resident memory of a decoder by the way its file is loaded, own pages and pages of the file apart.

    python benchmarks/resident.py BUNDLE [--repeat 3] [--out FILE]

Every measurement is a process of its own: it loads decoder.gguf, computes a prompt of 512 tokens and reads its own
resident memory before and after. The ways take turns. ``default`` is what ``edge_mllm.load`` does.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WAYS: dict[str, bool | None] = {"mapped": True, "read": False, "default": None}


def measure(bundle: Path, way: str, threads: int, prompt: int) -> dict[str, int]:
    """Bytes that loading and one prompt add to this process."""
    import numpy as np

    from edge_mllm.decoders.llama.decoder import LlamaDecoder
    from edge_mllm.decoders.protocol import Tokens
    from edge_mllm.decoders.settings import DecoderSettings
    from edge_mllm.machine.llama import library
    from edge_mllm.machine.memory import peak_rss_bytes
    from edge_mllm.measure.bench.memory import resident
    from edge_mllm.session.files import open_bundle

    opened = open_bundle(bundle, check_hashes=False)
    library()
    before = resident()
    settings = DecoderSettings(threads=threads, mmap=WAYS[way])
    decoder = LlamaDecoder(opened.file("decoder_gguf"), opened.spec.decoder, settings)
    decoder.prefill([Tokens(np.arange(prompt) % decoder.n_vocab)])
    after = resident()
    cells = (decoder.cell_bytes or 0) * prompt
    decoder.close()
    return {
        "resident": after.rss - before.rss,
        "anonymous": (after.anonymous or 0) - (before.anonymous or 0),
        "file": (after.file or 0) - (before.file or 0),
        "peak": (peak_rss_bytes() or 0) - before.rss,
        "weights": opened.file("decoder_gguf").stat().st_size,
        "cache": cells,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512, help="prompt tokens")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "resident.json")
    given = parser.parse_args()
    if given.way is not None:
        print(json.dumps(measure(given.bundle, given.way, given.threads, given.prompt)))
        return
    from rounds import in_turns, own_process, when_and_where

    common = (given.bundle, "--threads", given.threads, "--prompt", given.prompt)
    ways = {way: partial(own_process, __file__, *common, "--way", way) for way in WAYS}
    runs: dict[str, list[dict[str, int]]] = in_turns(ways, given.repeat, warmup=0)
    medians: dict[str, dict[str, Any]] = {
        way: {key: int(median(run[key] for run in found)) for key in found[0]} for way, found in runs.items()
    }
    result = {
        **when_and_where(),
        "bundle": given.bundle.name,
        "prompt_tokens": given.prompt,
        "threads": given.threads,
        "repeat": given.repeat,
        "bytes": medians,
        "resident_of_mapped": {
            way: round(each["resident"] / medians["mapped"]["resident"], 3) for way, each in medians.items()
        },
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("bytes", "resident_of_mapped")}, indent=1))


if __name__ == "__main__":
    main()
