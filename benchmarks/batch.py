"""How a batch scales: rows a second and memory of one worker and of two, on both engines.

    python benchmarks/batch.py [--bundle DIR]

Every run is the command itself over pictures nobody saw, in low detail and with short answers. The rate counts from
the first row's line to the last one's, without a row for each worker, so that opening the model is not in it. Processor
seconds count in the same way; they tell how two workers share caches and memory also where other programs take turns
with them. Memory is summed over the command and its workers at the moment when it is highest: resident pages of each,
and its share of pages that several have (``Pss``), whose sum is what the machine needs. Runs take turns. Medians go to
benchmarks/results/batch.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from rounds import when_and_where
from shape_bundles import bundle_of

from edge_mllm.machine.fingerprint import model_files

ROOT = Path(__file__).resolve().parent.parent
WAYS = {"1 worker, 1 thread": (1, 1), "2 workers, 1 thread each": (2, 1), "1 worker, 2 threads": (1, 2)}
_FIELD = re.compile(r"^(Rss|Pss):\s+(\d+) kB", re.MULTILINE)


def draw(folder: Path, count: int, seed: int) -> None:
    """Pictures of smooth noise."""
    random = np.random.default_rng(seed)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (24, 24, 3), np.uint8))
        small.resize((512, 512), Image.Resampling.BICUBIC).save(folder / f"{number:03}.jpg", quality=90)


def memory_of(process: int) -> dict[str, int]:
    """Bytes of a process and its children, by field of smaps_rollup."""
    found = {"Rss": 0, "Pss": 0}
    with contextlib.suppress(OSError):  # one of them has just ended
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        for each in (process, *children):
            for name, size in _FIELD.findall(Path(f"/proc/{each}/smaps_rollup").read_text()):
                found[name] += 1024 * int(size)
    return found


def processor_s(process: int) -> float:
    """Processor seconds that a process and its children have used."""
    ticks = 0
    with contextlib.suppress(OSError):  # one of them has just ended
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        for each in (process, *children):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def one_run(given: argparse.Namespace, bundle: Path, engine: str, way: str, seed: int) -> dict[str, float]:
    """The command over fresh pictures."""
    workers, threads = WAYS[way]
    with TemporaryDirectory() as place:
        work = Path(place)
        (work / "in").mkdir()
        draw(work / "in", given.rows, seed)
        command = [sys.executable, "-m", "edge_mllm", "batch", str(work / "in"), "-o", str(work / "out.jsonl"), "-q"]
        command += ["-m", str(bundle), "--engine", engine, "--threads", str(threads), "--workers", str(workers)]
        command += ["-p", "What is this?", "--detail", "low", "--max-new-tokens", str(given.answer_tokens)]
        begin = time.perf_counter()
        ran = subprocess.Popen(command, cwd=ROOT)
        seen, peak, ends, spent = 0, {"Rss": 0, "Pss": 0}, list[float](), list[float]()
        used = 0.0
        while ran.poll() is None:
            used = max(used, processor_s(ran.pid))  # workers take theirs with them when they end
            lines = (work / "out.jsonl").read_bytes().count(b"\n") if (work / "out.jsonl").exists() else 0
            if lines > seen:
                ends += [time.perf_counter()] * (lines - seen)
                spent += [used] * (lines - seen)
            seen = lines
            now = memory_of(ran.pid)
            peak = max(peak, now, key=lambda each: each["Pss"])
            time.sleep(0.02)
        if ran.returncode:
            raise SystemExit(f"the batch ended with {ran.returncode}")
        if len(ends) < given.rows:
            raise SystemExit("the last row was not seen; ask for longer answers")
        counted = given.rows - workers  # every worker ends its first row at about the same time
        return {
            "processor_s_a_row": (spent[-1] - spent[0]) / counted,
            "rows_a_second": counted / (ends[-1] - ends[0]),
            "first_row_s": ends[0] - begin,
            "resident_bytes": peak["Rss"],
            "proportional_bytes": peak["Pss"],
        }


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of every figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--engines", default="onnx,gguf")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--answer-tokens", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "batch.json")
    given = parser.parse_args()
    bundle, engines = given.bundle or bundle_of("smolvlm-500m"), given.engines.split(",")
    runs: dict[str, dict[str, list[dict[str, float]]]] = {name: {way: [] for way in WAYS} for name in engines}
    for number in range(given.repeat):
        for engine in engines:
            for way in WAYS:
                runs[engine][way].append(one_run(given, bundle, engine, way, number))
                print(engine, way, json.dumps(runs[engine][way][-1]), flush=True)
    found: dict[str, Any] = {name: {way: medians(each) for way, each in ways.items()} for name, ways in runs.items()}
    result = {
        "schema": "edge-mllm-batch/1",
        **when_and_where(),
        "bundle": bundle.name,
        "bundle_sha256": model_files(bundle).sha256,
        "rows": given.rows,
        "answer_tokens": given.answer_tokens,
        "engines": found,
        "samples": runs,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
