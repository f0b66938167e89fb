"""Write the goldens next to this file, from the reference alone: grids, the text around tiles, hashes of pixels.

    python tests/golden/make_golden.py

A change of a golden is a change of what models see: say why in the commit.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]

from image_settings import SETTINGS, Settings, picture, reference_tiles, sizes  # noqa: E402

GRID_SIZES = [
    (1, 1), (20, 1), (1, 20), (224, 224), (640, 480), (768, 1536), (1024, 768), (1080, 2400), (1920, 1080),
    (2480, 3508), (3000, 150), (4000, 3000), (12000, 9000), (65536, 1), (1, 65536), *sizes(60, seed=9, longest=9000),
]  # fmt: skip
# Sizes for which Pillow 10.3 to 13 agree; see edge_mllm/picture/tiling.py for the others.
PIXEL_SIZES = [(1, 1), (7, 3), (64, 48), (300, 200), (90, 400), (511, 513)]
LAYOUT_GRIDS = [(0, 0), (1, 2), (3, 2), (4, 4)]


def head() -> dict[str, Any]:
    """What made the file."""
    import PIL
    import transformers

    return {
        "schema_version": 1,
        "reference": "transformers Idefics3ImageProcessorPil and Idefics3Processor",
        "transformers": transformers.__version__,
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }


def sha256(array: np.ndarray) -> str:
    """Hash of the values in C order, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


def reference_grid(settings: Settings, size: tuple[int, int]) -> dict[str, Any]:
    """Rows, columns, tiles and visual tokens, from the reference's own code with the pixels taken out."""
    from reference_geometry import geometry

    rows, cols, resizes = geometry(settings.reference(), settings.longest_edge, settings.tile, size)
    tiles = rows * cols + 1
    return {
        "size": list(size),
        "resizes": [list(step) for step in resizes],
        "rows": rows,
        "cols": cols,
        "tiles": tiles,
        "tokens": tiles * settings.tokens,
    }


def grids() -> dict[str, Any]:
    """Grid of every size for every published setting."""
    entries = [
        {"settings": asdict(settings), "grids": [reference_grid(settings, size) for size in GRID_SIZES]}
        for settings in SETTINGS
    ]
    return {**head(), "entries": entries}


def pixels() -> dict[str, Any]:
    """SHA-256 of the input and of the float32 tiles [tiles, 3, h, w]."""
    entries = []
    for settings in SETTINGS:
        rows = []
        for size in PIXEL_SIZES:
            rgb = picture(*size)
            tiles, _ = reference_tiles(settings.reference(), rgb)
            rows.append({"size": list(size), "rgb": sha256(rgb), "shape": list(tiles.shape), "pixels": sha256(tiles)})
        entries.append({"settings": asdict(settings), "pictures": rows})
    return {**head(), "entries": entries}


def layouts() -> dict[str, Any]:
    """The text the reference writes for one picture with two visual tokens per tile; grid 0x0 is a single tile."""
    from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

    class Writer(Idefics3Processor):
        def __init__(self) -> None:
            self.fake_image_token, self.image_token = "<fake_token_around_image>", "<image>"
            self.global_image_tag, self.image_seq_len = "<global-img>", 2

    texts = [
        {"grid": [rows, cols], "text": Writer().replace_image_token({"rows": [[rows]], "cols": [[cols]]}, 0)}
        for rows, cols in LAYOUT_GRIDS
    ]
    return {**head(), "visual_tokens": 2, "texts": texts}


def write(name: str, document: dict[str, Any]) -> None:
    """JSON with one row a line, so that a change can be read in a diff."""
    text = json.dumps(document, indent=1)
    for entry in document.get("entries", []):
        for row in (*entry.get("grids", ()), *entry.get("pictures", ())):
            text = text.replace(json.dumps(row, indent=1).replace("\n", "\n    "), json.dumps(row))
    (HERE / name).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    write("grids.json", grids())
    write("pixels.json", pixels())
    write("layouts.json", layouts())


if __name__ == "__main__":
    main()
