"""What was tried to make the int8 vision tower faster in ONNX Runtime: seconds a tile, load time, agreement.

    python benchmarks/tower.py [--source shape:smolvlm-500m] [--repeat 9] [--work build/tower]

Every way runs once a round in one process, on one tile of the shape's true size; ratios are medians of the rounds' own
ratios to plain dynamic int8 with the standard Attention operator of opset 23. OpenVINO takes part where it is
installed, on the float32 graph (it is several times slower on integer graphs). Agreement with float32 is measured on
trained weights (``--trained``, the starter), tile by tile. Graphs stay in the work directory. Results go
to benchmarks/results/tower.json and, as a table, to standard output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from edge_mllm.tower_session import TowerEngine, open_tower  # noqa: E402

PLAIN = "Attention of opset 23"
SPIN, BACKOFF = "session.intra_op.allow_spinning", "session.intra_op.spin_backoff_max"


@dataclass(frozen=True)
class Way:
    """One row of the table."""

    graph: str
    """Key of GRAPHS."""
    tiles: int = 1
    """Tiles a run."""
    streams: int = 1
    """Runs at the same time, with a part of the threads each."""
    entries: tuple[tuple[str, str], ...] = ()
    """Session configuration."""
    engine: TowerEngine = "ort"


WAYS: dict[str, Way] = {
    PLAIN: Way("attention"),
    "MultiHeadAttention (what export writes)": Way("mha"),
    "... queries, keys, values from one product": Way("packed"),
    "... attention in blocks, float32": Way("blocks"),
    "... values in int8": Way("values"),
    "... values and scores in int8": Way("both"),
    "... values and scores in int8, one product": Way("both packed"),
    "... the same, blocks of 1 MiB": Way("both small"),
    "MultiHeadAttention, two tiles a run": Way("mha", tiles=2),
    "MultiHeadAttention, two tiles side by side": Way("mha", tiles=2, streams=2),
    "values and scores in int8, side by side": Way("both", tiles=2, streams=2),
    "MultiHeadAttention, threads do not spin": Way("mha", entries=((SPIN, "0"),)),
    "MultiHeadAttention, threads pause longer between spins": Way("mha", entries=((BACKOFF, "8"),)),
    "float32": Way("float"),
}
OPENVINO: dict[str, Way] = {
    "OpenVINO, float32": Way("float", engine="openvino"),
    "OpenVINO, bfloat16": Way("float", engine="openvino-bf16"),
}


def build_graphs(source: str, work: Path) -> dict[str, Path]:
    """Write every graph that is not there yet; name -> file. ``float`` is the reference."""
    import onnx
    from tower_graphs import Blocks, pack_projections, rewrite_attention

    from edge_mllm_export.families import find_family
    from edge_mllm_export.source import resolve_source
    from edge_mllm_export.vision_onnx import trace_tower
    from edge_mllm_quant.graph_files import save_graph
    from edge_mllm_quant.vision_int8 import quantise_dynamic

    work.mkdir(parents=True, exist_ok=True)
    files = {name: work / f"{name.replace(' ', '_')}.onnx" for name in ("float", *{w.graph for w in WAYS.values()})}
    if all(path.exists() for path in files.values()):
        return files
    with TemporaryDirectory() as scratch:
        checkpoint = resolve_source(source, Path(scratch))
        family = find_family(checkpoint)
        spec = family.vision(checkpoint)
        if spec.patches is not None:
            raise SystemExit("a tower that takes any size has no fixed number of tokens to cut into blocks")
        size = (spec.tile_height, spec.tile_width)
        traced = {kind: trace_tower(family.build_tower(checkpoint), size, kind) for kind in ("onnx", "mha")}
    save_graph(traced["onnx"], files["float"])
    copies = {"attention": traced["onnx"], "mha": traced["mha"], "packed": onnx.ModelProto()}
    copies["packed"].CopyFrom(traced["mha"])
    if not pack_projections(copies["packed"]):
        raise SystemExit("no projections of one input found")
    plain = {name: quantise_dynamic(model) for name, model in copies.items()}
    for name, graph in plain.items():
        save_graph(graph, files[name])
    both = Blocks(int8_scores=True, int8_values=True)
    for name, base, blocks in (
        ("blocks", "mha", Blocks()),
        ("values", "mha", Blocks(int8_values=True)),
        ("both", "mha", both),
        ("both packed", "packed", both),
        ("both small", "mha", Blocks(int8_scores=True, int8_values=True, most_bytes=1 << 20)),
    ):
        graph = onnx.ModelProto()
        graph.CopyFrom(plain[base])
        if not rewrite_attention(graph, blocks):
            raise SystemExit("no attention found")
        save_graph(graph, files[name])
    return files


def open_session(path: Path, threads: int, way: Way) -> Any:
    """A session as the runtime makes it."""
    if not way.entries:
        return open_tower(path, way.engine, threads)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    for key, value in (("session.force_spinning_stop", "1"), *way.entries):
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def make_run(way: Way, path: Path, threads: int) -> Callable[[], float]:
    """What measures seconds a tile."""
    each = max(1, threads // way.streams)
    sessions = [open_session(path, each, way) for _ in range(way.streams)]
    sides = [side if isinstance(side, int) else 1 for side in sessions[0].get_inputs()[0].shape]
    pixels = np.random.default_rng(0).normal(size=(way.tiles // way.streams, *sides[1:])).astype(np.float32)
    pool = ThreadPoolExecutor(way.streams)

    def run() -> float:
        start = time.perf_counter()
        list(pool.map(lambda session: session.run(["embeddings"], {"pixels": pixels}), sessions))
        return (time.perf_counter() - start) / way.tiles

    run()
    return run


def measure(files: dict[str, Path], threads: int, repeat: int) -> dict[str, dict[str, Any]]:
    """Medians of every way, interleaved."""
    runs, table = {}, {}
    for name, way in WAYS.items():
        start = time.perf_counter()
        open_session(files[way.graph], threads, way)
        table[name] = {"load_s": time.perf_counter() - start, "bytes": files[way.graph].stat().st_size}
        runs[name] = make_run(way, files[way.graph], threads)
    samples: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(repeat):
        for name in WAYS if number % 2 == 0 else reversed(WAYS):
            samples[name].append(runs[name]())
    for name, row in table.items():
        row["tile_s"] = statistics.median(samples[name])
        row["ratio"] = statistics.median(a / b for a, b in zip(samples[name], samples[PLAIN], strict=True))
        row["samples"] = samples[name]
    return table


def agreement(files: dict[str, Path], checkpoint: str, pictures: int) -> dict[str, dict[str, float]]:
    """Graph -> cosine of its embeddings with float32's, over the tiles of calibration pictures."""
    from edge_mllm.tiling import cut_tiles
    from edge_mllm_export.calibration import read_calibration
    from edge_mllm_export.families import find_family
    from edge_mllm_export.source import resolve_source

    with TemporaryDirectory() as scratch:
        opened = resolve_source(checkpoint, Path(scratch))
        family = find_family(opened)
        image, vision = family.image(opened), family.vision(opened)
        probes = read_calibration()[:pictures]
        tiles = [tile for probe in probes for tile in cut_tiles(probe.pictures[0], image, vision).pixels]
    bfloat = {"openvino-bf16": files["float"]} if find_spec("openvino") is not None else {}
    sessions = {name: open_session(path, 1, WAYS[PLAIN]) for name, path in files.items()}
    sessions |= {name: open_tower(path, "openvino-bf16", 1) for name, path in bfloat.items()}
    exact = np.concatenate([sessions["float"].run(["embeddings"], {"pixels": tile[None]})[0] for tile in tiles])
    found = {}
    for name, session in sessions.items():
        ours = np.concatenate([session.run(["embeddings"], {"pixels": tile[None]})[0] for tile in tiles])
        cosines = (ours * exact).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(exact, axis=-1)
        error = float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))
        found[name] = {
            "mean_cosine": float(cosines.mean()),
            "lowest_cosine": float(cosines.min()),
            "relative_error": error,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="shape:smolvlm-500m")
    parser.add_argument("--trained", default=str(ROOT / "starter" / "checkpoint"))
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "tower")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "tower.json")
    given = parser.parse_args()
    from edge_mllm.bench.fingerprint import fingerprint

    if find_spec("openvino") is not None:
        WAYS.update(OPENVINO)
    table = measure(build_graphs(given.source, given.work / "timed"), given.threads, given.repeat)
    trained = agreement(build_graphs(given.trained, given.work / "trained"), given.trained, given.pictures)
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(fingerprint(peaks=False)),
        "source": given.source,
        "threads": given.threads,
        "rounds": given.repeat,
        "ways": table,
        "agreement_on_trained_weights": trained,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("| way | of plain | s/tile | load s | mean cosine |\n|---|---|---|---|---|")
    for name, row in table.items():
        way = WAYS[name]
        cosine = trained[way.engine if way.engine in trained else way.graph]["mean_cosine"]
        print(f"| {name} | {row['ratio']:.2f} | {row['tile_s']:.3f} | {row['load_s']:.2f} | {cosine:.5f} |")


if __name__ == "__main__":
    main()
