"""``make soak``: long use by two threads, and kill -9 at random moments; writes benchmarks/results/soak.json.

Two threads ask one model about 2,000 pictures, on both engines: every answer must be the one that a single thread got,
and resident memory must stay flat. Exports, chats that are saved and caches that are written are killed at random
moments: nothing half-written may ever be read.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import edge_mllm
from edge_mllm.errors import EdgeMLLMError
from edge_mllm.machine.memory import resident_bytes, trim_heap
from edge_mllm.session.files import open_bundle
from fuzz.sources import make_sources

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "soak.json"
QUESTION = "What does it say?"
_DISTINCT, _SETTLED = 40, 200
FLAT_BYTES = 32 << 20

SAVE = """
import sys, edge_mllm, numpy as np
model = edge_mllm.load(sys.argv[1], engine="onnx", threads=1)
chat = model.chat()
for turn in range(1000):
    chat.ask(f"Turn {turn}?", [np.full((40, 40, 3), turn % 256, np.uint8)], max_new_tokens=1)
    chat.save(sys.argv[2])
    print(turn, flush=True)
    if turn % 8 == 7:
        chat = model.chat()
"""
CACHE = """
import sys, edge_mllm, numpy as np
model = edge_mllm.load(sys.argv[1], engine="onnx", threads=1, cache_dir=sys.argv[2])
for turn in range(100_000):
    model.encode(np.full((40, 40, 3), turn % 256, np.uint8))
    picture = np.full((40, 40, 3), turn % 256, np.uint8)
    model.generate("What?", [picture], max_new_tokens=1)
    print(turn, flush=True)
"""


def picture(number: int) -> np.ndarray:
    """One of the pictures that are asked about."""
    return np.random.default_rng(number).integers(0, 256, (48 + number, 64, 3), dtype=np.uint8)


def ask_from_two_threads(engine: str, count: int) -> dict[str, Any]:
    """Ask about so many pictures; the starter answers."""
    wrong, sizes = [], []
    with edge_mllm.load(engine=engine, threads=1, cache_bytes=200_000) as model:
        expected = [answer(model, number) for number in range(_DISTINCT)]
        waiting, lock = iter(range(count)), threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    number = next(waiting, None)
                if number is None:
                    return
                if answer(model, number % _DISTINCT) != expected[number % _DISTINCT]:
                    wrong.append(number)
                if number % 50 == 0:
                    sizes.append(resident_bytes() or 0)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    trim_heap()
    settled = sizes[min(len(sizes) - 1, _SETTLED // 50) :]
    return {"pictures": count, "wrong": wrong, "grown_bytes": max(settled) - settled[0], "resident_bytes": settled[-1]}


def answer(model: edge_mllm.Model, number: int) -> str:
    """What the model says of a picture."""
    return model.generate(QUESTION, [picture(number)], max_new_tokens=6).text


def killed(arguments: list[str], rng: random.Random, *, starts: bool, longest: float) -> None:
    """Start a process and end it with SIGKILL within ``longest`` seconds, counted from its first line if ``starts``."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    if starts:
        process.stdout.readline()
    time.sleep(rng.uniform(0, longest))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def kill_saving(sources: Path, scratch: Path, count: int, rng: random.Random) -> list[str]:
    """Chats: the file is the one before or the one after."""
    faults, file = [], scratch / "chat"
    with edge_mllm.load(sources / "bundle", engine="onnx", threads=1) as model:
        for number in range(count):
            killed(["-c", SAVE, str(sources / "bundle"), str(file)], rng, starts=True, longest=1.5)
            try:
                model.load_chat(file).ask("And?", max_new_tokens=1)
            except EdgeMLLMError as error:
                faults.append(f"chat {number}: {error}")
    return faults


def kill_caching(sources: Path, scratch: Path, count: int, rng: random.Random) -> list[str]:
    """Caches: what is found gives the same answers as what is computed."""
    faults, folder = [], scratch / "cache"
    with edge_mllm.load(sources / "bundle", engine="onnx", threads=1) as fresh:
        for number in range(count):
            killed(["-c", CACHE, str(sources / "bundle"), str(folder)], rng, starts=True, longest=1.0)
            with edge_mllm.load(sources / "bundle", engine="onnx", threads=1, cache_dir=folder) as model:
                for value in rng.sample(range(256), 6):
                    shown = [np.full((40, 40, 3), value, np.uint8)]
                    found, expected = (each.generate("What?", shown, max_new_tokens=3).text for each in (model, fresh))
                    if found != expected:
                        faults.append(f"cache {number}: picture {value}")
    return faults


def kill_exporting(sources: Path, scratch: Path, count: int, rng: random.Random) -> list[str]:
    """Exports: a bundle is whole or not there."""
    faults, out = [], scratch / "made.edge"
    arguments = ["-m", "edge_mllm", "export", str(sources / "tiny-smolvlm"), "-o", str(out), "--quant", "f32"]
    for number in range(count):
        killed([*arguments, "--vision", "fp32", "--no-verify", "--force"], rng, starts=False, longest=14.0)
        if out.exists():
            try:
                open_bundle(out)
            except EdgeMLLMError as error:
                faults.append(f"export {number}: {error}")
    return faults


def main() -> None:
    """Run everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--sources", type=Path, default=ROOT / "build" / "fuzz" / "sources")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rng, sources = random.Random(arguments.seed), make_sources(arguments.sources)
    result: dict[str, Any] = {}

    def note(name: str, found: dict[str, Any]) -> None:
        """Keep what is known so far: a run may be stopped."""
        result[name] = found
        print(name, found, flush=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")

    for engine in ("onnx", "gguf"):
        note(engine, ask_from_two_threads(engine, arguments.pictures))
    with tempfile.TemporaryDirectory(dir=sources.parent) as scratch:
        counts = {"chat": 2 * arguments.kills // 5, "cache": 2 * arguments.kills // 5, "export": arguments.kills // 5}
        kinds = {"chat": kill_saving, "cache": kill_caching, "export": kill_exporting}
        for kind, run in kinds.items():
            note(f"killed {kind}", {"times": counts[kind], "faults": run(sources, Path(scratch), counts[kind], rng)})
    bad = [each for each in result.values() if each.get("wrong") or each.get("faults")]
    grown = max(result[engine]["grown_bytes"] for engine in ("onnx", "gguf"))
    sys.exit(1 if bad or grown > FLAT_BYTES else 0)


if __name__ == "__main__":
    main()
