"""Memory of large pictures: what was reckoned from the header, what an answer took, and whether limits are kept.

``python benchmarks/picture_memory.py`` asks the starter about a picture of 196 megapixels in three kinds of JPEG file,
each in a process of its own, and makes 200 random requests with limits (tests/memory_requests.py). The result goes to
benchmarks/results/picture_memory.json.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from rounds import own_process

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "picture_memory.json"
SIDE = 14_000
REQUESTS = 200
_SIZES = ((800, 600), (1600, 1200), (4000, 3000), (2400, 6000))
_ASK = """
import json, sys
from pathlib import Path
import edge_mllm
from edge_mllm.machine.memory import peak_rss_bytes, resident_bytes
from edge_mllm.picture.image import read_header
with edge_mllm.load(engine="onnx", threads=1) as model:
    model.load_tower()
    model.generate("Hello", max_new_tokens=1)
    header, before = read_header(sys.argv[1]), resident_bytes()
    plan = model.plan("What is this?", [sys.argv[1]], max_new_tokens=2)
    Path("/proc/self/clear_refs").write_text("5")
    model.generate("What is this?", [sys.argv[1]], max_new_tokens=2)
    found = {"reckoned": header.decoding_bytes, "planned_peak": plan.memory.peak_bytes, "peak": peak_rss_bytes()}
    print(json.dumps(found | {"model": before}))
"""


def large_pictures(folder: Path) -> dict[str, Path]:
    """Baseline and upright, progressive, and turned by its EXIF data."""
    noise = Image.effect_noise((SIDE // 20, SIDE // 20), 60).resize((SIDE, SIDE)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: dict[str, dict[str, Any]] = {"baseline": {}, "progressive": {"progressive": True}, "turned": {"exif": exif}}
    for name, options in kinds.items():
        noise.save(folder / f"{name}.jpg", quality=80, **options)
    return {name: folder / f"{name}.jpg" for name in kinds}


def smaller_pictures(folder: Path) -> Path:
    """For the random requests: several sizes and kinds of files."""
    folder.mkdir()
    for number, size in enumerate(_SIZES):
        picture = Image.effect_noise((size[0] // 10, size[1] // 10), 60).resize(size).convert("RGB")
        for kind, options in {"jpg": {}, "png": {}, "webp": {"method": 0}, "tiff": {"compression": "tiff_lzw"}}.items():
            picture.save(folder / f"{number}.{kind}", **options)
        picture.save(folder / f"progressive{number}.jpg", progressive=True)
        picture.convert("RGBA").save(folder / f"clear{number}.png")
    return folder


def main() -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as scratch:
        kinds = {}
        for name, file in large_pictures(Path(scratch)).items():
            found = own_process("-c", _ASK, file)
            kinds[name] = found | {"bytes_a_pixel": round((found["peak"] - found["model"]) / SIDE**2, 3)}
            print(name, kinds[name], flush=True)
        requests = own_process(
            ROOT / "tests" / "memory_requests.py", smaller_pictures(Path(scratch) / "small"), 14, REQUESTS
        )
    over = max(peak / limit for *_, limit, peak, _ in requests)
    outcomes = [outcome for *_, outcome in requests]
    summary = {name: outcomes.count(name) for name in ("answered", "refused")}
    result = {
        "megapixels": SIDE**2 / 1e6,
        "kinds": kinds,
        "requests": summary,
        "largest_share_of_limit": round(over, 4),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
