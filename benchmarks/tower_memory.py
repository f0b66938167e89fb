"""What a vision tower on ONNX Runtime adds to a process, by the way its session is made.

    python benchmarks/tower_memory.py BUNDLE [--repeat 3] [--tiles 5] [--only external] [--out FILE]

Every measurement is a process of its own that loads the tower and encodes tiles; the ways take turns. ``default`` is
what ``edge_mllm.load`` does. ``external`` is the same tower with its weights in a file beside it, which ONNX Runtime
maps, and ``optimised`` the graph as ONNX Runtime's optimizer leaves it, written the same way.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

NO_PREPACKING = {"session.disable_prepacking": "1"}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "heap trimmed": {"trim": True},
    "no memory pattern": {"pattern": False},
    "default: no memory pattern, heap trimmed": {"pattern": False, "trim": True},
    "no arena": {"arena": False},
    "no arena, no memory pattern, heap trimmed": {"arena": False, "pattern": False, "trim": True},
    "arena grows as asked for": {"entries": {"session.use_env_allocators": "1"}},
    "arena shrinks after every run": {"shrink": True},
    "weights outside the arena": {"entries": {"session.use_device_allocator_for_initializers": "1"}},
    "no prepacking": {"entries": NO_PREPACKING},
    "external, no memory pattern": {"pattern": False, "file": "external"},
    "external, no memory pattern, heap trimmed": {"pattern": False, "file": "external", "trim": True},
    "external, no memory pattern, no prepacking": {"pattern": False, "entries": NO_PREPACKING, "file": "external"},
    "optimised, external, no memory pattern, no prepacking": {
        "pattern": False,
        "entries": NO_PREPACKING,
        "file": "optimised",
    },
}


def measure(path: Path, way: dict[str, Any], threads: int, tiles: int) -> dict[str, float]:
    """Bytes that the tower adds to this process, and seconds."""
    import numpy as np
    import onnxruntime as ort

    from edge_mllm.machine.memory import peak_rss_bytes
    from edge_mllm.measure.bench.memory import resident

    options = ort.SessionOptions()
    options.log_severity_level, options.inter_op_num_threads, options.intra_op_num_threads = 3, 1, threads
    options.enable_mem_pattern, options.enable_cpu_mem_arena = way.get("pattern", True), way.get("arena", True)
    for key, value in way.get("entries", {}).items():
        options.add_session_config_entry(key, value)
    if "session.use_env_allocators" in way.get("entries", {}):
        names = ("arena_extend_strategy", "max_mem", "initial_chunk_size_bytes", "max_dead_bytes_per_chunk")
        place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(place, ort.OrtArenaCfg(dict(zip(names, (1, 0, -1, -1), strict=True))))
    before, start = resident(), time.perf_counter()
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    if way.get("trim"):
        ctypes.CDLL(None).malloc_trim(0)
    loaded, load_s = resident(), time.perf_counter() - start
    peak_loading = peak_rss_bytes() or 0
    run = ort.RunOptions()
    if way.get("shrink"):
        run.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    pixels = session.get_inputs()[0]
    tile = np.random.default_rng(0).normal(size=(1, *pixels.shape[1:])).astype(np.float32)
    seconds = []
    for _ in range(tiles):
        start = time.perf_counter()
        session.run(None, {pixels.name: tile}, run)
        seconds.append(time.perf_counter() - start)
    after = resident()
    return {
        "loaded": loaded.rss - before.rss,
        "peak_loading": peak_loading - before.rss,
        "after": after.rss - before.rss,
        "after_anonymous": (after.anonymous or 0) - (before.anonymous or 0),
        "peak": (peak_rss_bytes() or 0) - before.rss,
        "load_s": load_s,
        "tile_s": min(seconds[1:]),
    }


def variants(tower: Path, folder: Path) -> dict[str, Path]:
    """The tower's file and its other forms."""
    import onnx
    import onnxruntime as ort

    found = {"": tower, "external": folder / "external.onnx", "optimised": folder / "optimised.onnx"}
    plain = folder / "plain.onnx"
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(plain)
    ort.InferenceSession(str(tower), options, providers=["CPUExecutionProvider"])
    for name, source in {"external": tower, "optimised": plain}.items():
        data = {"all_tensors_to_one_file": True, "location": f"{name}.data", "size_threshold": 1024}
        onnx.save(onnx.load(source), found[name], save_as_external_data=True, **data)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tiles", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="ways with this word in their name, and the default")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "tower_memory.json")
    given = parser.parse_args()
    if given.way is not None:
        print(json.dumps(measure(given.bundle, WAYS[given.way], given.threads, given.tiles)))
        return
    from rounds import in_turns, own_process, when_and_where

    tower, common = given.bundle / "vision.onnx", ("--threads", given.threads, "--tiles", given.tiles)
    with tempfile.TemporaryDirectory() as folder:
        files = variants(tower, Path(folder))
        ways = {
            way: partial(own_process, __file__, files[settings.get("file", "")], "--way", way, *common)
            for way, settings in WAYS.items()
            if given.only in way or way.startswith("default")
        }
        runs: dict[str, list[dict[str, float]]] = in_turns(ways, given.repeat, warmup=0)
    result = {
        **when_and_where(),
        "bundle": given.bundle.name,
        "tower_file_bytes": tower.stat().st_size,
        "threads": given.threads,
        "repeat": given.repeat,
        "ways": {
            way: {key: round(median(run[key] for run in found), 4) for key in found[0]} for way, found in runs.items()
        },
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for way, each in result["ways"].items():
        sizes = ", ".join(f"{key} {each[key] / 1e6:.0f}" for key in ("loaded", "after", "after_anonymous", "peak"))
        print(f"{way}: {sizes} MB; {each['tile_s']:.3f} s a tile")


if __name__ == "__main__":
    main()
