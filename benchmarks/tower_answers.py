"""What the ways to store a tower cost in answers: the starter's held-out questions, with each tower in its bundle.

    python benchmarks/tower.py --build
    python benchmarks/tower_answers.py [--pages 350] [--work build/tower]

The graphs are those of benchmarks/tower.py on the starter's weights; int8 computes its attention in integers there,
which an export leaves to longer attentions. Results go to benchmarks/results/tower_answers.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from rounds import when_and_where  # noqa: E402

import edge_mllm  # noqa: E402
from starter import evaluate  # noqa: E402
from starter.evaluate_bundles import difference, matches, say  # noqa: E402

TOWERS = {
    "float32": "float",
    "plain dynamic int8": "attention",
    "int8, attention in integers": "int8",
    "int8_static": "int8_static",
}


def put_tower(bundle: Path, graph: Path) -> None:
    """Another tower in a copied bundle."""
    shutil.copyfile(graph, bundle / "vision.onnx")
    manifest = json.loads((bundle / "bundle.json").read_text("utf-8"))
    digest = hashlib.sha256(graph.read_bytes()).hexdigest()
    manifest["parts"]["vision"] |= {"bytes": graph.stat().st_size, "sha256": digest}
    (bundle / "bundle.json").write_text(json.dumps(manifest), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=350)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "tower")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "tower_answers.json")
    given = parser.parse_args()
    asked = list(evaluate.questions(given.pages))
    right: dict[str, np.ndarray] = {}
    with TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "starter.edge"
        shutil.copytree(ROOT / "edge_mllm" / "starter.edge", bundle)
        for name, graph in TOWERS.items():
            put_tower(bundle, given.work / "trained" / f"{graph}.onnx")
            with edge_mllm.load(bundle, engine="onnx", threads=1) as model:
                right[name] = matches(asked, [say(model, *entry[:2]) for entry in asked])
            print(f"{name}: {right[name].mean():.4f}", flush=True)
    result = {
        **when_and_where(),
        "decoder": "onnx int4_b32",
        "questions": len(asked),
        "towers": {
            name: {"right": float(found.mean()), "difference_to_float32": difference(found, right["float32"])}
            for name, found in right.items()
        },
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
