"""What was tried to make the int8 vision tower faster: seconds a tile, load time, agreement, share of the peaks.

    python benchmarks/tower.py [--source shape:smolvlm-500m] [--repeat 9] [--work build/tower]

Every way runs once a round in one process, on one tile of the shape's true size; ratios are medians of the rounds' own
ratios to plain dynamic int8 with the standard Attention operator of opset 23. OpenVINO takes part where it is
installed. Agreement with float32 is measured on trained weights (``--trained``, the starter), tile by tile, with
integer attention however few its tokens are. The share of the peak is that of integer products, as ``edge-mllm bench``
measures it, for all products of a tile. Graphs stay in the work directory; ``--build`` makes them and stops. Results go
to benchmarks/results/tower.json and, as a table, to standard output. On a machine that does other work too,
``--cpu-time`` counts the processor time of one thread instead, and ``--only`` measures some ways beside the plain one
and leaves the other rows of the result file as they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from edge_mllm.tower.engines import TowerEngine, open_tower  # noqa: E402

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
    "MultiHeadAttention": Way("mha"),
    "... queries, keys, values from one product": Way("packed"),
    "... attention in blocks, float32": Way("blocks"),
    "... values in int8, head by head": Way("values"),
    "... values and scores in int8, head by head": Way("both"),
    "... two tiles side by side, a thread each": Way("mha", tiles=2, streams=2),
    "... threads do not spin": Way("mha", entries=((SPIN, "0"),)),
    "int8 (what export writes)": Way("int8"),
    "... blocks of 2 heads": Way("int8 2"),
    "... blocks of 12 heads": Way("int8 12"),
    "... two int8 tiles side by side, a thread each": Way("int8", tiles=2, streams=2),
    "int8_static": Way("int8_static"),
    "float32": Way("float"),
}
OPENVINO: dict[str, Way] = {
    "OpenVINO, float32": Way("float", engine="openvino"),
    "OpenVINO, bfloat16": Way("float", engine="openvino-bf16"),
    "OpenVINO, int8": Way("int8", engine="openvino"),
    "OpenVINO, int8_static": Way("int8_static", engine="openvino"),
    "OpenVINO, int8_static, bfloat16": Way("int8_static", engine="openvino-bf16"),
}
SAMPLES = 24
AGREEMENT = "agreement_on_trained_weights"


def build_graphs(source: str, work: Path) -> dict[str, Path]:
    """Write every graph that is not there yet; name -> file. ``float`` is the reference."""
    from tower_graphs import Blocks, pack_projections, rewrite_attention

    from edge_mllm_quant.graph.files import save_graph
    from edge_mllm_quant.recipes.recipe import find_recipe
    from edge_mllm_quant.tower.int8 import quantise_dynamic
    from edge_mllm_quant.tower.integer_attention import LEAST_TOKENS
    from edge_mllm_quant.tower.tower import quantise_tower

    work.mkdir(parents=True, exist_ok=True)
    files = {name: work / f"{name.replace(' ', '_')}.onnx" for name in ("float", *{w.graph for w in WAYS.values()})}
    if all(path.exists() for path in files.values()):
        return files
    traced, samples = trace(source)
    save_graph(traced["onnx"], files["float"])
    packed = copy_of(traced["mha"])
    if not pack_projections(packed):
        raise SystemExit("no projections of one input found")
    mha = quantise_dynamic(copy_of(traced["mha"]))
    save_graph(mha, files["mha"])
    save_graph(quantise_dynamic(traced["onnx"]), files["attention"])
    save_graph(quantise_dynamic(packed), files["packed"])
    for name, blocks in (
        ("blocks", Blocks()),
        ("values", Blocks(int8_values=True)),
        ("both", Blocks(int8_scores=True, int8_values=True)),
    ):
        graph = copy_of(mha)
        if not rewrite_attention(graph, blocks):
            raise SystemExit("no attention found")
        save_graph(graph, files[name])
    random = not samples
    least, tuned = (LEAST_TOKENS, ()) if random else (1, samples)
    for name, heads in (("int8", 4), ("int8 2", 2), ("int8 12", 12)):
        with block_heads(heads):
            made = quantise_tower(copy_of(traced["mha"]), find_recipe("vision", "int8"), tuned, integer_from=least)
        save_graph(made.model, files[name])
    fixed = samples or noise(traced["mha"])
    save_graph(quantise_tower(traced["mha"], find_recipe("vision", "int8_static"), fixed).model, files["int8_static"])
    return files


def trace(source: str) -> tuple[dict[str, Any], Sequence[Mapping[str, Any]]]:
    """The tower with each attention operator, and tiles of the calibration pictures (none for random weights)."""
    from edge_mllm_export.calibrate.calibration import read_calibration
    from edge_mllm_export.families.registry import find_family
    from edge_mllm_export.source.source import resolve_source
    from edge_mllm_export.write.vision.attention import ATTENTIONS
    from edge_mllm_export.write.vision.tower import tower_samples, trace_tower

    with TemporaryDirectory() as scratch:
        checkpoint = resolve_source(source, Path(scratch))
        family = find_family(checkpoint)
        spec = family.vision(checkpoint)
        if spec.patches is not None:
            raise SystemExit("a tower that takes any size has no fixed number of tokens to cut into blocks")
        size = (spec.tile_height, spec.tile_width)
        traced = {kind: trace_tower(family.build_tower(checkpoint), size, kind) for kind in ATTENTIONS}
        if checkpoint.random_weights:
            return traced, ()
        pictures = [picture for probe in read_calibration()[:SAMPLES] for picture in probe.pictures]
        return traced, tower_samples(checkpoint, family, pictures)


def copy_of(model: Any) -> Any:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def noise(model: Any) -> list[dict[str, Any]]:
    """One tile of noise: fixed scales have to come from something where only speed is asked."""
    sides = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim][1:]
    return [{"pixels": np.random.default_rng(0).normal(size=(1, *sides)).astype(np.float32)}]


@contextmanager
def block_heads(heads: int) -> Iterator[None]:
    """Integer attention with blocks of so many heads."""
    from edge_mllm_quant.tower import integer_attention

    before, integer_attention.BLOCK_HEADS = integer_attention.BLOCK_HEADS, heads
    try:
        yield
    finally:
        integer_attention.BLOCK_HEADS = before


def operations(path: Path) -> dict[str, float]:
    """Operations of one tile: products with weights, and attention."""
    import onnx

    graph = onnx.load_model(path).graph
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    shapes = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in graph.value_info}
    shapes |= {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in graph.output}
    linear = sum(
        2 * np.prod([max(1, side) for side in shapes[node.output[0]]]) * weights[node.input[1]][0]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    )
    heads = [shapes[node.output[0]] for node in graph.node if node.op_type == "Attention"]
    attention = sum(4 * shape[1] * shape[2] ** 2 * shape[3] for shape in heads)
    return {"linear": float(linear), "attention": float(attention)}


def open_session(path: Path, threads: int, way: Way) -> Any:
    """A session as the runtime makes it."""
    if not way.entries:
        return open_tower(path, way.engine, threads)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    options.enable_mem_pattern = False
    for key, value in (("session.force_spinning_stop", "1"), *way.entries):
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def make_run(way: Way, path: Path, threads: int) -> Callable[[], float]:
    """What measures seconds a tile."""
    session = open_session(path, max(1, threads // way.streams), way)
    sides = [side if isinstance(side, int) else 1 for side in session.get_inputs()[0].shape]
    pixels = np.random.default_rng(0).normal(size=(way.tiles // way.streams, *sides[1:])).astype(np.float32)
    pool = ThreadPoolExecutor(way.streams)

    def run() -> float:
        start = time.perf_counter()
        list(pool.map(lambda _: session.run(["embeddings"], {"pixels": pixels}), range(way.streams)))
        return (time.perf_counter() - start) / way.tiles

    run()
    return run


def cpu_run(way: Way, path: Path) -> Callable[[], float]:
    """What measures processor seconds a tile, on one thread."""
    session = open_session(path, 1, way)
    sides = [side if isinstance(side, int) else 1 for side in session.get_inputs()[0].shape]
    pixels = np.random.default_rng(0).normal(size=(way.tiles, *sides[1:])).astype(np.float32)

    def run() -> float:
        start = time.process_time()
        session.run(["embeddings"], {"pixels": pixels})
        return (time.process_time() - start) / way.tiles

    run()
    return run


def measure(
    files: dict[str, Path], ways: dict[str, Way], threads: int, repeat: int, *, cpu_time: bool
) -> dict[str, dict[str, Any]]:
    """Medians of every way, interleaved."""
    clock = time.process_time if cpu_time else time.perf_counter
    runs, table = {}, {}
    for name, way in ways.items():
        start = clock()
        open_session(files[way.graph], threads, way)
        table[name] = {"load_s": clock() - start, "bytes": files[way.graph].stat().st_size}
        path = files[way.graph]
        runs[name] = cpu_run(way, path) if cpu_time else make_run(way, path, threads)
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeat):
        for name in ways if number % 2 == 0 else reversed(ways):
            samples[name].append(runs[name]())
    for name, row in table.items():
        row["tile_s"] = statistics.median(samples[name])
        row["ratio"] = statistics.median(a / b for a, b in zip(samples[name], samples[PLAIN], strict=True))
        row["samples"] = samples[name]
    return table


def agreement(files: dict[str, Path], checkpoint: str, pictures: int) -> dict[str, dict[str, float]]:
    """Graph -> cosine of its embeddings with float32's, over the tiles of calibration pictures."""
    from edge_mllm.picture.tiling import cut_tiles
    from edge_mllm_export.calibrate.calibration import read_calibration
    from edge_mllm_export.families.registry import find_family
    from edge_mllm_export.source.source import resolve_source

    with TemporaryDirectory() as scratch:
        opened = resolve_source(checkpoint, Path(scratch))
        family = find_family(opened)
        image, vision = family.image(opened), family.vision(opened)
        probes = read_calibration()[:pictures]
        tiles = [tile for probe in probes for tile in cut_tiles(probe.pictures[0], image, vision).pixels]
    sessions = {name: open_session(path, 1, WAYS[PLAIN]) for name, path in files.items()}
    engines = {f"{way.engine} {way.graph}": way for way in WAYS.values() if way.engine != "ort"}
    sessions |= {name: open_tower(files[way.graph], way.engine, 1) for name, way in engines.items()}
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
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--only", action="append", metavar="PART", help="ways with this in their name or graph")
    parser.add_argument("--agreement", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    if find_spec("openvino") is not None:
        WAYS.update(OPENVINO)
    timed = build_graphs(given.source, given.work / "timed")
    trained = build_graphs(given.trained, given.work / "trained")
    if given.build:
        return
    from rounds import when_and_where

    from edge_mllm.machine.peaks import measure_peaks

    threads = 1 if given.cpu_time else given.threads
    ways = {n: w for n, w in WAYS.items() if not given.only or n == PLAIN or any(part in n for part in given.only)}
    if given.cpu_time:
        ways = {name: way for name, way in ways.items() if way.streams == 1 and not way.entries}
    work, peaks = operations(timed["float"]), measure_peaks(threads, seconds=1)
    table = measure(timed, ways, threads, given.repeat, cpu_time=given.cpu_time)
    for name, row in table.items():
        share = sum(work.values()) / peaks.int8_ops_per_s / row["tile_s"]
        row["of_int8_peak"] = None if given.cpu_time else share  # the peaks are by the wall clock
        row |= asdict(WAYS[name])
    result: dict[str, Any] = {
        **when_and_where(),
        "source": given.source,
        "clock": "processor time" if given.cpu_time else "wall",
        "threads": threads,
        "rounds": given.repeat,
        "peaks": asdict(peaks),
        "operations_of_a_tile": work,
        "ways": table,
    }
    kept = json.loads(given.out.read_text("utf-8")) if given.only and given.out.is_file() else {}
    result["ways"] = kept.get("ways", {}) | table
    close = agreement(trained, given.trained, given.pictures) if given.agreement else kept.get(AGREEMENT, {})
    result[AGREEMENT] = close
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print_table(result)


def print_table(result: dict[str, Any]) -> None:
    """Markdown."""
    print("| way | of plain | s/tile | load s | of the int8 peak | mean cosine | relative error |")
    print("|---|---|---|---|---|---|---|")
    for name, row in result["ways"].items():
        found = result[AGREEMENT]
        close = found.get(row["graph"] if row["engine"] == "ort" else f"{row['engine']} {row['graph']}")
        share = "" if row["of_int8_peak"] is None else f"{row['of_int8_peak']:.0%}"
        figures = f"{row['ratio']:.2f} | {row['tile_s']:.3f} | {row['load_s']:.2f} | {share}"
        agrees = f"{close['mean_cosine']:.5f} | {close['relative_error']:.4f}" if close else " | "
        print(f"| {name} | {figures} | {agrees} |")


if __name__ == "__main__":
    main()
