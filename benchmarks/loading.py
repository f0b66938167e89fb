"""How long a process takes until it has loaded a model, and from its start to the first token, as people feel it.

    python benchmarks/loading.py [--shape smolvlm-500m] [--rounds 7]

Every sample is a process of its own: it loads a bundle and asks about a small picture. The files are in the system's
cache. Ways take turns: with hashes that were compared before, with an empty cache folder, so that every file is read
and compared, and with hashes and kept graphs. Medians and shares go to benchmarks/results/loading.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rounds import circumstances, in_turns
from shape_bundles import bundle_of

from edge_mllm.session.keep_graphs import keep_graphs

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "loading.json"
PROGRAM = """
import json, sys, time
import edge_mllm
start = time.perf_counter()
model = edge_mllm.load(sys.argv[1], engine=sys.argv[2], threads=int(sys.argv[3]))
loaded = time.perf_counter()
stream = model.stream("What does it say?", sys.argv[4], detail="low", max_new_tokens=2)
next(iter(stream))
print(json.dumps({"load_s": loaded - start, "now": time.time()}))
"""


def one(bundle: Path, engine: str, threads: int, cache: Path | None) -> tuple[float, float]:
    """Seconds of loading (imports included), and from the process's start to its first piece of text."""
    with TemporaryDirectory() as empty:
        env = {**os.environ, "EDGE_MLLM_CACHE": str(cache or empty)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", PROGRAM, bundle, engine, threads, ROOT / "starter" / "demo" / "label.png"]
        start = time.time()
        done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return found["load_s"], found["now"] - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="smolvlm-500m")
    parser.add_argument("--bundle", type=Path, help="of this shape; made where it is missing")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    bundle = given.bundle or bundle_of(given.shape)
    with TemporaryDirectory() as kept, TemporaryDirectory() as graphs:
        os.environ["EDGE_MLLM_CACHE"] = graphs
        keep_graphs(bundle)
        ways = {
            f"{engine}, {name}": partial(one, bundle, engine, given.threads, cache)
            for engine in ("onnx", "gguf")
            for name, cache in (
                ("hashes remembered", Path(kept)),
                ("hashes compared", None),
                ("graphs kept", Path(graphs)),
            )
        }
        samples = in_turns(ways, given.rounds)
    result: dict[str, Any] = circumstances(bundle, threads=given.threads, repeat=given.rounds, peaks=False)
    for name, found in samples.items():
        loads, firsts = zip(*found, strict=True)
        result[name] = {
            "load_s": statistics.median(loads),
            "process_to_first_token_s": statistics.median(firsts),
            "load_samples": loads,
            "first_samples": firsts,
        }
        print(
            f"{name}: load {result[name]['load_s']:.2f} s, first token {result[name]['process_to_first_token_s']:.2f} s"
        )
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
