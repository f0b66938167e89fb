"""Export ``shape:`` models at true size and ask each one question: time, memory, bytes, visual tokens.

    python benchmarks/shapes.py smolvlm-500m internvl3-1b ...      # all shapes when none is named

Weights are random, so the answers mean nothing and no quality is reported. Every export and every answer is a process
of its own; peak memory is that process's maximum resident set, its children included. Results go to
benchmarks/results/shapes.json, one entry per shape; entries of shapes that are not named stay.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from edge_mllm.bench.fingerprint import fingerprint
from edge_mllm.budget import ImageBudget
from edge_mllm.bundle_files import open_bundle
from edge_mllm.pictures import prepare_pictures

RESULTS = Path(__file__).parent / "results" / "shapes.json"
SIZES = ((640, 480), (1024, 768), (1080, 2400))
EXPORT_LIMIT_S = 30 * 60


def main() -> None:
    """Measure the shapes named on the command line."""
    from edge_mllm_export.shapes import SHAPES

    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"shapes": {}}
    for name in sys.argv[1:] or list(SHAPES):
        with tempfile.TemporaryDirectory() as scratch:
            known["shapes"][name] = measure_shape(name, Path(scratch))
        RESULTS.write_text(json.dumps(known, indent=2) + "\n")
        print(json.dumps({name: known["shapes"][name]}, indent=2))


def measure_shape(name: str, scratch: Path) -> dict[str, Any]:
    """Export one shape to both formats and let both engines answer one question about one picture."""
    bundle = scratch / f"{name}.edge"
    command = ["export", f"shape:{name}", "-o", str(bundle), "--format", "both", "--no-verify"]
    seconds, peak, done = run_measured(command, EXPORT_LIMIT_S)
    machine = fingerprint(peaks=False)
    entry: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": machine.processor.model, "memory_bytes": machine.memory_bytes},
        "commit": machine.commit,
        "load_average_before": os.getloadavg()[0],
        "export_s": round(seconds, 1),
        "export_peak_rss_bytes": peak,
    }
    if done.returncode:
        return entry | {"failed": done.stderr.strip().splitlines()[-1:]}
    opened = open_bundle(bundle)
    entry["parts"] = {part: {"bytes": p.bytes, "precision": p.precision} for part, p in opened.spec.parts.items()}
    entry["tokens_per_picture"] = {f"{w}x{h}": tokens(opened, w, h) for w, h in SIZES}
    picture = scratch / "photo.png"
    Image.effect_noise((1024, 768), 64).convert("RGB").save(picture)
    ask = ["run", "-m", str(bundle), "-i", str(picture), "--json", "--max-new-tokens", "32", "--threads", "2"]
    for engine in opened.spec.engines:
        _, peak, done = run_measured([*ask, "--engine", engine, "What is this?"], EXPORT_LIMIT_S)
        answer = json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr.strip()[-300:]}
        entry[engine] = {key: answer[key] for key in ("timings", "usage", "failed") if key in answer}
        entry[engine]["peak_rss_bytes"] = peak
    return entry


def tokens(opened: Any, width: int, height: int) -> int:
    """Visual tokens of a picture of this size."""
    (part,) = prepare_pictures([Image.new("RGB", (width, height))], opened.spec, ImageBudget())
    return int(part.tokens)


def run_measured(arguments: list[str], limit_s: float) -> tuple[float, int, subprocess.CompletedProcess[str]]:
    """Wall seconds, peak resident bytes and the result of one ``edge-mllm`` process."""
    watcher = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(done.returncode)"
    )
    start = time.perf_counter()
    command = [sys.executable, "-c", watcher, sys.executable, "-m", "edge_mllm", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    seconds = time.perf_counter() - start
    *lines, kilobytes = done.stderr.strip().splitlines()
    done.stderr = "\n".join(lines)
    return seconds, int(kilobytes) * 1024, done


if __name__ == "__main__":
    main()
