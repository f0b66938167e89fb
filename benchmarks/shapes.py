"""Export ``shape:`` models at true size and ask each one question: time, memory, bytes, visual tokens.

    python benchmarks/shapes.py smolvlm-500m internvl3-1b ...      # all shapes when none is named

Weights are random, so the answers mean nothing and no quality is reported. Every export and every answer is a process
of its own, which is stopped at --minutes and --gib and then recorded as having taken more; peak memory is the resident
set of that process and its children. Results go to benchmarks/results/shapes.json, one entry per shape; entries of
shapes that are not named stay.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limited import Limits, run_limited
from PIL import Image

from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.pictures.bundle_picture import prepare_pictures
from edge_mllm.machine.fingerprint import fingerprint
from edge_mllm.session.files import open_bundle

RESULTS = Path(__file__).parent / "results" / "shapes.json"
SIZES = ((640, 480), (1024, 768), (1080, 2400))


def main() -> None:
    """Measure the shapes named on the command line."""
    from edge_mllm_export.shapes import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--minutes", type=float, default=30, help="the most an export or an answer may take")
    parser.add_argument("--gib", type=float, default=20, help="the most memory that one may take")
    given = parser.parse_args()
    limits = Limits(given.minutes * 60, int(given.gib * (1 << 30)))
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"shapes": {}}
    for name in given.names or SHAPES:
        with tempfile.TemporaryDirectory() as scratch:
            known["shapes"][name] = measure_shape(name, Path(scratch), limits)
        RESULTS.write_text(json.dumps(known, indent=2) + "\n")
        print(json.dumps({name: known["shapes"][name]}, indent=2))


def measure_shape(name: str, scratch: Path, limits: Limits) -> dict[str, Any]:
    """Export one shape to both formats and let both engines answer one question about one picture."""
    bundle = scratch / f"{name}.edge"
    command = ["export", f"shape:{name}", "-o", str(bundle), "--format", "both", "--no-verify"]
    done = run_limited(command, limits)
    machine = fingerprint(peaks=False)
    entry: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": machine.processor.model, "memory_bytes": machine.memory_bytes},
        "commit": machine.commit,
        "load_average_before": os.getloadavg()[0],
        "export_s": round(done.seconds, 1),
        "export_peak_rss_bytes": done.peak_bytes,
    }
    if done.failure is not None:
        return entry | {"failed": [f"export: {done.failure.splitlines()[-1]}"]}
    opened = open_bundle(bundle)
    entry["parts"] = {part: {"bytes": p.bytes, "precision": p.precision} for part, p in opened.spec.parts.items()}
    entry["tokens_per_picture"] = {f"{w}x{h}": tokens(opened, w, h) for w, h in SIZES}
    picture = scratch / "photo.png"
    Image.effect_noise((1024, 768), 64).convert("RGB").save(picture)
    ask = ["run", "-m", str(bundle), "-i", str(picture), "--json", "--max-new-tokens", "32", "--threads", "2"]
    for engine in opened.spec.engines:
        done = run_limited([*ask, "--engine", engine, "What is this?"], limits)
        answer = json.loads(done.stdout) if done.failure is None else {"failed": done.failure}
        entry[engine] = {key: answer[key] for key in ("timings", "usage", "failed") if key in answer}
        entry[engine]["peak_rss_bytes"] = done.peak_bytes
    return entry


def tokens(opened: Any, width: int, height: int) -> int:
    """Visual tokens of a picture of this size."""
    (part,) = prepare_pictures([Image.new("RGB", (width, height))], opened.spec, ImageBudget())
    return int(part.tokens)


if __name__ == "__main__":
    main()
