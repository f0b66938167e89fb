"""Random settings of image processors against transformers; the result goes to benchmarks/results.

    python tests/parity_settings.py

Each set of settings goes through the reference and through edge_mllm, with three pictures. Equal means bit for bit and
id for id; refused means by file and field. A single silent difference ends the run with that set, and nothing is
written.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("", "export", "quant", "tests")]

from processor_settings import FAMILIES, MANY, PICTURES, Settings, sweep  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "parity_settings.json"


def report() -> dict[str, Any]:
    """Every family's counts, with the versions they were made with."""
    import hypothesis
    import PIL
    import transformers

    found = {}
    for name in FAMILIES:
        with tempfile.TemporaryDirectory() as home:
            seen = sweep(Settings(name, Path(home)), MANY)
        found[name] = {"settings": seen.total(), "equal": seen["equal"], "refused": seen["refused"]}
        print(name, found[name], flush=True)
    return {
        "schema_version": 1,
        "what": "random image processor settings: edge_mllm's pixels and token ids against transformers' (PIL backend)",
        "pictures": [list(size) for size in PICTURES],
        "versions": {
            "python": platform.python_version(),
            "transformers": transformers.__version__,
            "pillow": PIL.__version__,
            "hypothesis": hypothesis.__version__,
        },
        "results": found,
    }


if __name__ == "__main__":
    RESULT.write_text(json.dumps(report(), indent=1) + "\n", encoding="utf-8")
