"""What calibration with pictures costs: seconds and peak memory of an export with it and without.

    python benchmarks/calibration_cost.py [--shapes smolvlm-500m] [--starter] [--only with|without] [--out FILE]

A shape's random weights are written as an ordinary checkpoint first, because the exporter does not calibrate random
weights when it knows of them; their loss means nothing, their cost is that of real ones. Every export is a process of
its own, without verification. Memory is the sum of the resident sets of that process and its children, sampled twenty
times a second, pages that they share counted for each. The limits of the project are 10 GiB and 15 minutes on 2 cores.
``--only`` measures one of the two; what the result file says of others stays.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rounds import when_and_where

ROOT = Path(__file__).resolve().parent.parent
LIMIT_BYTES, LIMIT_S = 10 * 2**30, 15 * 60
WAYS = {"without": "--no-calibration", "with": "--calibration"}
_PAUSE_S = 0.05
_SHOWN_S = 0.5
"""Shorter steps are not listed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="*", default=["smolvlm-500m"])
    parser.add_argument("--starter", action="store_true", help="measure the starter's checkpoint too")
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "calibration_cost.json")
    given = parser.parse_args()
    models: dict[str, Any] = _measured_before(given.out)
    with tempfile.TemporaryDirectory() as scratch:
        sources = {name: _shape(name, Path(scratch)) for name in given.shapes}
        sources |= {"starter": ROOT / "starter" / "checkpoint"} if given.starter else {}
        for name, source in sources.items():
            for way in [given.only] if given.only else WAYS:
                models.setdefault(name, {})[way] = measure(source, Path(scratch), WAYS[way])
                print(json.dumps({name: {way: models[name][way]}}, indent=1))
                _write(given.out, models)


def _measured_before(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))["models"] if out.exists() else {}
    return found


def _write(out: Path, models: dict[str, Any]) -> None:
    result = {"limits": {"bytes": LIMIT_BYTES, "seconds": LIMIT_S}, "models": models}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _shape(name: str, scratch: Path) -> Path:
    from edge_mllm_export.shapes import load_shape, write_shape

    write_shape(load_shape(name), scratch / name)
    return scratch / name


def measure(source: Path, scratch: Path, option: str) -> dict[str, Any]:
    """Export both engines once; seconds of every step, peak bytes, and what the bundle says of its calibration."""
    out, log = scratch / "cost.edge", scratch / "log"
    command = [sys.executable, "-m", "edge_mllm", "export", str(source), "-o", str(out), "--force", "--no-verify"]
    load = os.getloadavg()[0]
    start = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen([*command, option], stdout=file, stderr=subprocess.STDOUT)
    peak, begun = 0, list[float]()
    while process.poll() is None:
        peak = max(peak, tree_bytes(process.pid))
        begun += [time.perf_counter()] * (len(log.read_text().splitlines()) - len(begun))
        time.sleep(_PAUSE_S)
    end = time.perf_counter()
    lines = log.read_text().splitlines()
    if process.returncode:
        raise SystemExit("\n".join(lines))
    steps = {
        line: round(after - before, 1) for line, before, after in zip(lines, begun, [*begun[1:], end], strict=False)
    }
    seconds = end - start
    recipe = json.loads((out / "bundle.json").read_text(encoding="utf-8"))["recipe"]
    return {
        **when_and_where(),
        "seconds": round(seconds, 1),
        "steps": {"start": round(begun[0] - start, 1)}
        | {line: took for line, took in steps.items() if took >= _SHOWN_S},
        "peak_bytes": peak,
        "within_limits": seconds <= LIMIT_S and peak <= LIMIT_BYTES,
        "load_average_before": load,
        "calibration": recipe["decoder_gguf"].get("calibration"),
    }


def tree_bytes(pid: int) -> int:
    """Resident bytes of a process and all its descendants; 0 for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") + sum(map(tree_bytes, children))


if __name__ == "__main__":
    main()
