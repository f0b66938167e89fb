"""Pixels and token ids against transformers over many sizes; the result goes to benchmarks/results.

    python tests/parity_pixels.py

Each picture goes as 8-bit RGB through transformers' Idefics3Processor (PIL image processor) and through edge_mllm,
for each published setting. Equal means bit for bit and id for id.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("", "export", "quant", "tests")]

from bundle_specs import make_spec  # noqa: E402
from image_settings import (  # noqa: E402
    SETTINGS,
    Settings,
    chat,
    picture,
    reference_inputs,
    reference_processor,
    sizes,
)

from edge_mllm.picture.tiling import Preprocessed, cut_tiles  # noqa: E402
from edge_mllm.prompt.build import build_prompt  # noqa: E402
from edge_mllm.prompt.template import ChatTemplate  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "parity_idefics3.json"
COUNT, SEED, LONGEST = 200, 2026, 3000
FIXED = [(1, 1), (1, 2), (20, 1), (1, 20), (2, 3000), (3000, 150), (150, 3000), (4000, 3000), (3000, 4000), (4000, 200)]


@dataclass(frozen=True)
class Comparison:
    """One picture through both."""

    ours: Preprocessed
    pixels_equal: bool
    max_abs_difference: float
    ids_equal: bool
    ids: int


class Pair:
    """transformers' processor and ours with the same settings and tokenizer."""

    def __init__(self, settings: Settings, checkpoint: Path) -> None:
        from tokenizers import Tokenizer

        self.settings = settings
        self.processor = reference_processor(settings, checkpoint)
        self.spec = make_spec(checkpoint, settings)
        self.tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self.template = ChatTemplate(self.processor.chat_template)

    def compare(self, rgb: np.ndarray, question: str = "What is the total?\n") -> Comparison:
        messages = chat(question, 1)
        reference = reference_inputs(self.processor, [rgb], messages)
        expected, expected_ids = reference["pixel_values"][0], reference["input_ids"][0]
        ours = cut_tiles(rgb, self.spec.image, self.spec.vision)
        ids = build_prompt(messages, [ours.plan], self.spec, self.tokenizer, self.template).ids
        same_shape = ours.pixels.shape == expected.shape
        return Comparison(
            ours=ours,
            pixels_equal=same_shape and np.array_equal(ours.pixels, expected),
            max_abs_difference=float(np.abs(ours.pixels - expected).max()) if same_shape else float("inf"),
            ids_equal=np.array_equal(ids, expected_ids),
            ids=len(ids),
        )


def sweep(settings: Settings, checkpoint: Path, count: int = COUNT) -> dict[str, Any]:
    """Compare ``count`` sizes; the first are fixed extremes, the rest seeded."""
    pair = Pair(settings, checkpoint)
    todo = (FIXED + sizes(max(0, count - len(FIXED)), SEED, LONGEST))[:count]
    rows = []
    for width, height in todo:
        found = pair.compare(picture(width, height))
        rows.append(
            {
                "width": width,
                "height": height,
                "grid": list(found.ours.grid),
                "tiles": found.ours.tiles,
                "token_ids": found.ids,
                "pixels_equal": found.pixels_equal,
                "max_abs_difference": found.max_abs_difference,
                "ids_equal": found.ids_equal,
            }
        )
    return {
        "settings": asdict(settings),
        "sizes": len(rows),
        "pixels_equal": sum(row["pixels_equal"] for row in rows),
        "ids_equal": sum(row["ids_equal"] for row in rows),
        "max_abs_difference": max(row["max_abs_difference"] for row in rows),
        "rows": rows,
    }


def report(checkpoint: Path, count: int = COUNT) -> dict[str, Any]:
    """The whole result, with the versions it was made with."""
    import PIL
    import tokenizers
    import transformers

    return {
        "schema_version": 1,
        "what": "edge_mllm pixels and token ids against transformers' Idefics3Processor with its PIL image processor",
        "seed": SEED,
        "versions": {
            "python": platform.python_version(),
            "transformers": transformers.__version__,
            "pillow": PIL.__version__,
            "numpy": np.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "results": [sweep(settings, checkpoint, count) for settings in SETTINGS],
    }


def write(result: dict[str, Any], path: Path = RESULT) -> None:
    """One row a line, so that a change can be read in a diff."""
    text = json.dumps(result, indent=1)
    for entry in result["results"]:
        for row in entry["rows"]:
            text = text.replace(json.dumps(row, indent=1).replace("\n", "\n    "), json.dumps(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    from tiny_models import make_tiny_smolvlm

    with tempfile.TemporaryDirectory() as scratch:
        result = report(make_tiny_smolvlm(Path(scratch) / "tiny"))
    write(result)
    for entry in result["results"]:
        print(
            f"{entry['settings']['name']}: {entry['sizes']} sizes, pixels equal {entry['pixels_equal']}, "
            f"token ids equal {entry['ids_equal']}"
        )


if __name__ == "__main__":
    main()
