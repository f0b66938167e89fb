"""How far one picture walks through the code: calls, functions and modules from ``Model.stream`` to the first token.

The second question of a loaded starter with a new picture is walked, so that loading is over. Counted are calls of this
package's own functions (``sys.setprofile``; generators count each time they go on), the modules they are in, and the
changes of module from one call to the next. Writes ``benchmarks/results/walk.json``.

Run: ``python -m benchmarks.walk``
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import edge_mllm

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "walk.json"
PACKAGE = str(Path(edge_mllm.__file__).parent)
LIMITS = {"modules": 25, "changes_of_module": 90, "tilings_planned": 2}


def walk(engine: str) -> dict[str, Any]:
    """Count one answer's way to its first token."""
    called: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<"):
            module = code.co_filename.removeprefix(PACKAGE).removesuffix(".py").strip("/").replace("/", ".")
            called.append((module, code.co_qualname))

    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    with edge_mllm.load(engine=engine) as model:
        model.generate("What does it say?", [picture[::-1]], max_new_tokens=2)
        sys.setprofile(note)
        try:
            next(iter(model.stream("What does it say?", [picture], max_new_tokens=2)))
        finally:
            sys.setprofile(None)
    modules = [module for module, _ in called]
    return {
        "calls": len(called),
        "functions": len(set(called)),
        "modules": len(set(modules)),
        "changes_of_module": sum(before != after for before, after in pairwise(modules)),
        "tilings_planned": sum(name == "plan_tiles" for _, name in called),
        "names": sorted(set(modules)),
        "by_module": {name: modules.count(name) for name in sorted(set(modules), key=modules.count, reverse=True)},
    }


def main() -> None:
    """Walk on both engines."""
    found = {engine: walk(engine) for engine in ("onnx", "gguf")}
    OUT.write_text(json.dumps({"limits": LIMITS, "engines": found}, indent=1) + "\n", "utf-8")
    for engine, counts in found.items():
        shown = ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in ("calls", "functions", *LIMITS))
        print(f"{engine}: {shown}")


if __name__ == "__main__":
    main()
