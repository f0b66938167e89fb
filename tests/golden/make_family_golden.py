"""Write a family's goldens next to this file, from the reference: tiles, visual tokens, hashes of pixels.

    python tests/golden/make_family_golden.py NAME
    python tests/golden/make_family_golden.py --parity NAME    (200 sizes, into benchmarks/results)

A change of a golden is a change of what models see: say why in the commit.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("", "export", "quant", "tests")]

from family_parity import GOLDEN_SIZES, Pair, seeded_sizes  # noqa: E402

FAMILIES: dict[str, Callable[[Path], Path]] = {}
"""Name -> makes a tiny checkpoint with the published tile size."""


def _internvl(directory: Path) -> Path:
    from tiny_internvl import make_tiny_internvl

    return make_tiny_internvl(directory, tile=448, patch=56)


def _qwen2_vl(directory: Path) -> Path:
    from tiny_qwen2_vl import make_tiny_qwen2_vl

    return make_tiny_qwen2_vl(directory, max_pixels=12_845_056)


FAMILIES["internvl"] = _internvl


def _llava(directory: Path) -> Path:
    from tiny_llava import make_tiny_llava

    return make_tiny_llava(directory, tile=336, patch=56)


def _llava_next(directory: Path) -> Path:
    from tiny_anyres import make_tiny_llava_next

    return make_tiny_llava_next(directory, tile=336, patch=56)


def _llava_onevision(directory: Path) -> Path:
    from tiny_anyres import make_tiny_llava_onevision

    return make_tiny_llava_onevision(directory, tile=384, patch=64)


def _bluelm_v(directory: Path) -> Path:
    from tiny_bluelm_v import make_tiny_bluelm_v

    return make_tiny_bluelm_v(directory, tile=384, patch=128)


def _llava_phi(directory: Path) -> Path:
    from tiny_llava import make_tiny_llava_phi

    return make_tiny_llava_phi(directory, tile=384, patch=64)


def _ferret_ui(directory: Path) -> Path:
    from tiny_ferret_ui import make_tiny_ferret_ui

    return make_tiny_ferret_ui(directory, tile=336, patch=56)


FAMILIES["llava"] = _llava
FAMILIES["llava_phi"] = _llava_phi
FAMILIES["llava_next"] = _llava_next
FAMILIES["llava_onevision"] = _llava_onevision
FAMILIES["bluelm_v"] = _bluelm_v
FAMILIES["ferret_ui"] = _ferret_ui
FAMILIES["qwen2_vl"] = _qwen2_vl


def _qwen2_5_vl(directory: Path) -> Path:
    from tiny_qwen2_vl import make_tiny_qwen2_5_vl

    return make_tiny_qwen2_5_vl(directory, max_pixels=12_845_056)


FAMILIES["qwen2_5_vl"] = _qwen2_5_vl


def _qwen3_vl(directory: Path) -> Path:
    from tiny_qwen3_vl import make_tiny_qwen3_vl

    return make_tiny_qwen3_vl(directory, size=None)


FAMILIES["qwen3_vl"] = _qwen3_vl


def _qwen3_5(directory: Path) -> Path:
    from tiny_qwen3_5 import make_tiny_qwen3_5

    return make_tiny_qwen3_5(directory, size=None)


FAMILIES["qwen3_5"] = _qwen3_5


def _gemma3(directory: Path) -> Path:
    from tiny_gemma3 import make_tiny_gemma3

    return make_tiny_gemma3(directory, tile=896, patch=224)


FAMILIES["gemma3"] = _gemma3


def _minicpm_v(directory: Path) -> Path:
    from tiny_minicpm_v import make_tiny_minicpm_v

    return make_tiny_minicpm_v(directory, scale=448, side=70)


FAMILIES["minicpm_v"] = _minicpm_v


def _minicpm_v_4_6(directory: Path) -> Path:
    from tiny_minicpm_v_4_6 import make_tiny_minicpm_v_4_6

    return make_tiny_minicpm_v_4_6(directory, scale=448, side=70, nested=True)


FAMILIES["minicpm_v_4_6"] = _minicpm_v_4_6


def _minicpm_v_4_7(directory: Path) -> Path:
    from tiny_minicpm_v_4_7 import make_tiny_minicpm_v_4_7

    return make_tiny_minicpm_v_4_7(directory, scale=448, side=70, nested=True)


FAMILIES["minicpm_v_4_7"] = _minicpm_v_4_7


VARIANTS: dict[str, list[dict[str, Any]]] = {"gemma3": [{}, {"pan_and_scan": True}]}
"""Name -> what a caller can ask the processor for; nothing where the name is missing."""


def compare_all(name: str, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """One result for each variant."""
    return [compare(name, sizes, **settings) for settings in VARIANTS.get(name, [{}])]


def _reference(described: Mapping[str, Any]) -> str:
    """What pixels and ids were compared with."""
    own = described.get("image_processor")
    return f"transformers {own}" if own else f"written from {described['written_from']}"


def compare(name: str, sizes: list[tuple[int, int]], **settings: Any) -> dict[str, Any]:
    """Rows of all sizes, from the reference, with what ours is beside it."""
    with tempfile.TemporaryDirectory() as scratch:
        pair = Pair(FAMILIES[name](Path(scratch) / name), **settings)
        rows = [pair.row(size) for size in sizes if possible(size, pair.spec.image.tiler.kind)]
    return {
        **({"settings": settings} if settings else {}),
        "reference": _reference(pair.processor.described),
        "sizes": len(rows),
        "pixels_equal": sum(row["pixels_equal"] for row in rows),
        "ids_equal": sum(row["ids_equal"] for row in rows),
        "rows": rows,
    }


def possible(size: tuple[int, int], mechanism: str) -> bool:
    """Towers for any size refuse pictures that are more than 200 times as long as wide."""
    return mechanism != "native_resolution" or max(size) <= 200 * min(size)


def document(results: list[dict[str, Any]]) -> dict[str, Any]:
    """A whole file, with the versions it was made with."""
    import numpy
    import PIL
    import transformers

    versions = {"python": platform.python_version(), "transformers": transformers.__version__}
    return {
        "schema_version": 1,
        "what": "edge_mllm pixels and token ids against the model's own processor with its PIL image processor",
        "versions": {**versions, "pillow": PIL.__version__, "numpy": numpy.__version__},
        "results": results,
    }


def write(path: Path, found: dict[str, Any]) -> None:
    """One row a line, so that a change can be read in a diff."""
    text = json.dumps(found, indent=1)
    for entry in found["results"]:
        for row in entry["rows"]:
            text = text.replace(json.dumps(row, indent=1).replace("\n", "\n    "), json.dumps(row))
    path.write_text(text + "\n", encoding="utf-8")


def parity_file(name: str) -> Path:
    """Where the long sweep's result is kept."""
    return ROOT / "benchmarks" / "results" / f"parity_{name}.json"


def parity(name: str, count: int = 200) -> dict[str, Any]:
    """The long sweep."""
    found = document(compare_all(name, seeded_sizes(count)))
    write(parity_file(name), found)
    return found


def main() -> None:
    names = [name for name in sys.argv[1:] if name != "--parity"] or list(FAMILIES)
    for name in names:
        if "--parity" in sys.argv:
            parity(name)
        else:
            write(HERE / f"{name}.json", document(compare_all(name, GOLDEN_SIZES)))


if __name__ == "__main__":
    main()
