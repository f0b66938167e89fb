"""This checkout beside one of another commit: first token and decoding of the same bundle, in turns.

Both load the bundle in a process of their own and answer about the same new picture, one after the other, the first of
a round in turns. What is compared are medians of the runtime's own timings. The result goes to
``benchmarks/results/side_by_side.json``.

Run: ``python -m benchmarks.side_by_side --other ../edge-mllm-987aa70 --bundle smolvlm-500m.edge``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from edge_mllm.machine.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "side_by_side.json"
TOKENS = 32
CHILD = """
import json, sys
import numpy as np
import edge_mllm
model = edge_mllm.load(sys.argv[1], engine=sys.argv[2], check_hashes=False)
print("ready", flush=True)
for line in sys.stdin:
    width, height, seed = json.loads(line)
    picture = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    times = model.generate("What is this?", [picture], max_new_tokens=int(sys.argv[3]), ignore_eos=True).timings
    print(json.dumps({"ttft_s": times.ttft_s, "decode_tps": times.decode_tps}), flush=True)
"""


class Side:
    """One checkout's process."""

    def __init__(self, root: Path, bundle: Path, engine: str) -> None:
        paths = os.pathsep.join(str(root / part) for part in ("", "export", "quant"))
        command = [sys.executable, "-c", CHILD, str(bundle), engine, str(TOKENS)]
        self._process: Any = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self._read()

    def ask(self, width: int, height: int, seed: int) -> dict[str, float]:
        """One answer about a picture that was not seen before."""
        self._process.stdin.write(json.dumps([width, height, seed]) + "\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._read())
        return found

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            sys.exit("one side ended; its error is above")
        return line


def compare(other: Path, bundle: Path, engine: str, size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Medians of both sides and their ratio, here over there; the first round warms up and does not count."""
    sides = {"here": Side(ROOT, bundle, engine), "there": Side(other, bundle, engine)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in sides if number % 2 else reversed(sides):
            answer = sides[name].ask(*size, number)
            if number:
                found[name].append(answer)
    for side in sides.values():
        side.close()
    medians = {name: {key: median(each[key] for each in runs) for key in runs[0]} for name, runs in found.items()}
    ratios = {key: medians["here"][key] / medians["there"][key] for key in medians["here"]}
    return {"medians": medians, "here_over_there": ratios, "runs": found}


def commit(root: Path) -> str:
    """Of a checkout."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    """Both engines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512))
    given = parser.parse_args()
    size = (given.size[0], given.size[1])
    bundle = given.bundle.resolve()
    engines = {name: compare(given.other.resolve(), bundle, name, size, given.rounds) for name in ("onnx", "gguf")}
    document = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commits": {"here": commit(ROOT), "there": commit(given.other)},
        "machine": asdict(fingerprint(peaks=False)),
        "bundle": bundle.name,
        "picture": list(size),
        "answer_tokens": TOKENS,
        "engines": engines,
    }
    OUT.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    for name, result in engines.items():
        print(name, {key: round(value, 3) for key, value in result["here_over_there"].items()})


if __name__ == "__main__":
    main()
