"""The starter's tower for Hexagon NPUs, compiled and run on the vendor's simulator, which is no device.

    python benchmarks/npu.py [--pages 400] [--simulated 30] [--parts towers answers large]

Cosines are with the checkpoint's tower in float32, over tiles that no scale was taken from: held-out pages, and
pictures unlike any page. The profiler's cycles are the simulator's: they follow the host's clock, so every operator's
least value over the runs is taken, and they say nothing of seconds on a device. Results go to
benchmarks/results/npu.json; a part that is not asked for stays as it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from rounds import when_and_where  # noqa: E402

import edge_mllm  # noqa: E402
from edge_mllm.bundle.files import SPEC_FILE, read_bundle, write_spec  # noqa: E402
from edge_mllm.machine.npu import qnn_library  # noqa: E402
from edge_mllm.tower.npu.process import NpuProcess, NpuSession, Port  # noqa: E402
from edge_mllm.tower.npu.qnn import QnnGraph  # noqa: E402
from edge_mllm.tower.placement import Placement  # noqa: E402
from edge_mllm.tower.tower import VisionTower  # noqa: E402
from edge_mllm_export.calibrate.calibration import MEASURING, read_calibration  # noqa: E402
from edge_mllm_export.families.registry import find_family  # noqa: E402
from edge_mllm_export.job import Job  # noqa: E402
from edge_mllm_export.source.source import resolve_source  # noqa: E402
from edge_mllm_export.targets import PRECISIONS, Target  # noqa: E402
from edge_mllm_export.write.npu.tower import write_npu_towers  # noqa: E402
from edge_mllm_export.write.vision.tower import NPU_TILES, tower_samples, trace_tower  # noqa: E402
from edge_mllm_quant.npu import fixed_scales  # noqa: E402
from edge_mllm_quant.npu.plain_graph import plain_graph  # noqa: E402
from starter import evaluate  # noqa: E402
from starter.evaluate_bundles import difference, matches, say  # noqa: E402

STARTER = ROOT / "edge_mllm" / "starter.edge"
OUT = ROOT / "benchmarks" / "results" / "npu.json"
ARCHITECTURES = ("v73", "v75", "v79")
Array = np.ndarray


def job_of(work: Path) -> Job:
    """The starter's checkpoint with the tiles that fix scales."""
    checkpoint = resolve_source(str(ROOT / "starter" / "checkpoint"), work, None)
    family = find_family(checkpoint)
    pictures = [picture for probe in read_calibration() for picture in probe.pictures]
    samples = tower_samples(checkpoint, family, pictures, most=NPU_TILES)
    return Job(checkpoint, family, {}, work, work, npu_samples=samples)


@dataclass
class Exact:
    """The checkpoint's tower, and tiles of two kinds."""

    job: Job

    def __post_init__(self) -> None:
        self._tower = self.job.family.build_tower(self.job.checkpoint).eval()
        pages = [picture for probe in read_calibration(MEASURING) for picture in probe.pictures]
        chosen = tower_samples(self.job.checkpoint, self.job.family, pictures=pages, most=24)
        self.tiles = {"pages": np.concatenate([feeds["pixels"] for feeds in chosen]), "unlike pages": unlike()}
        self.rows = {name: self.embeddings(tiles) for name, tiles in self.tiles.items()}

    @staticmethod
    def of(job: Job, pixels: Array) -> Array:
        """Embeddings of a checkpoint's tower."""
        import torch

        with torch.inference_mode():
            found: Array = job.family.build_tower(job.checkpoint).eval()(torch.from_numpy(pixels)).numpy()
        return found

    def embeddings(self, pixels: Array) -> Array:
        """Of tiles [tiles, 3, height, width]."""
        import torch

        with torch.inference_mode():
            found: Array = self._tower(torch.from_numpy(pixels)).numpy()
        return found


def unlike() -> Array:
    """Tiles of noise, of one colour and of a slope, float32 [8, 3, 96, 96]."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1, 1, (4, 3, 96, 96))
    flat = [np.full((3, 96, 96), value) for value in (-1, 1, 0.2)]
    slope = np.broadcast_to(np.linspace(-1, 1, 96), (3, 96, 96))
    return np.stack([*noise, *flat, slope]).astype(np.float32)


def cosines(ours: Array, exact: Array) -> dict[str, float]:
    """Mean and least over visual tokens."""
    a, b = ours.astype(np.float64), exact.astype(np.float64)
    found = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return {"mean": float(found.mean()), "least": float(found.min())}


class OnCpu:
    """A graph of fixed shape on ONNX Runtime's CPU provider, with the methods of NpuProcess."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        ports = (self._session.get_inputs(), self._session.get_outputs())
        self.inputs, self.outputs = ([Port(port.name, port.type, port.shape) for port in each] for each in ports)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs."""
        names = [port.name for port in self.outputs]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))

    def close(self) -> None:
        """Nothing is held."""


def encoded(process: Any, pixels: Array, tiles: int) -> Array:
    """Embeddings of all tiles."""
    return NpuSession(process, tiles).run(["embeddings"], {"pixels": pixels})[0]


def towers(exact: Exact, work: Path) -> dict[str, Any]:
    """Every precision: written, compiled, run."""
    found: dict[str, Any] = {}
    for precision in PRECISIONS["qnn-htp"]:
        target = Target("qnn-htp", ARCHITECTURES if precision == "a16w8" else ("v75",), precision)
        folder = work / precision
        folder.mkdir()
        job = replace(exact.job, staging=folder, targets=(target,))
        start = time.perf_counter()
        for tower in write_npu_towers(job, target, lambda _: None):
            seconds, start = time.perf_counter() - start, time.perf_counter()
            name = precision if tower.tiles == 1 else f"{precision} x{tower.tiles}"
            found[name] = measured(tower, exact, folder) | {"write_s": seconds}
            print(name, json.dumps(found[name])[:300], flush=True)
    return found


def measured(tower: Any, exact: Exact, work: Path) -> dict[str, Any]:
    half, profile = tower.precision == "fp16", work / "profile.csv"
    context = next(each for each in tower.contexts if each.architecture == "v75")
    place = QnnGraph(file=work / context.graph.file, architecture="v75", half=half)
    process, seconds, cosine = NpuProcess(place.through(qnn_library())), [], {}
    for kind, tiles in exact.tiles.items():
        start = time.perf_counter()
        cosine[kind] = cosines(encoded(process, tiles, tower.tiles), exact.rows[kind])
        seconds.append((time.perf_counter() - start) / len(tiles))
    process.close()
    report = {
        "device": "Hexagon v75 (simulated)",
        "graph_bytes": tower.graph.bytes,
        "context_bytes": {each.architecture: each.binary.bytes for each in tower.contexts},
        "nodes_on_cpu": tower.report["nodes_on_cpu"],
        "cosine": cosine,
        "simulator_s_per_tile": min(seconds),
    }
    if not half:
        report["cosine_cpu_provider"] = {
            kind: cosines(encoded(OnCpu(work / tower.graph.file), tiles, tower.tiles), exact.rows[kind])
            for kind, tiles in exact.tiles.items()
        }
    profile.unlink(missing_ok=True)
    watched = {"profiling_level": "detailed", "profiling_file_path": str(profile)}
    graph = QnnGraph(file=work / tower.graph.file, architecture="v75", half=half, options=watched)
    process = NpuProcess(graph.through(qnn_library()))
    encoded(process, exact.tiles["pages"][: 8 * tower.tiles], tower.tiles)
    process.close()
    return report | {"cycles": cycles(profile, work / tower.graph.file, tower.tiles)}


def large(work: Path) -> dict[str, Any]:
    """SmolVLM-500M's tower (SigLIP-B/16 at 512 pixels) with random weights: one tile, which takes minutes."""
    checkpoint = resolve_source("shape:smolvlm-500m", work, None)
    family = find_family(checkpoint)
    pictures = [picture for probe in read_calibration()[:4] for picture in probe.pictures]
    samples = tower_samples(checkpoint, family, pictures, most=4)
    target = Target("qnn-htp", ("v75",))
    start = time.perf_counter()
    job = Job(checkpoint, family, {}, work, work, targets=(target,), npu_samples=samples[:3])
    (tower,) = write_npu_towers(job, target, lambda text: print(text, flush=True))
    seconds, pixels = time.perf_counter() - start, samples[-1]["pixels"]
    exact = Exact.of(job, pixels)
    process = NpuProcess(QnnGraph(file=work / tower.contexts[0].graph.file, architecture="v75").through(qnn_library()))
    start = time.perf_counter()
    ours = encoded(process, pixels, 1)
    return {
        "shape": "smolvlm-500m",
        "random_weights": True,
        "write_s": seconds,
        "simulator_s_per_tile": time.perf_counter() - start,
        "context_bytes": tower.contexts[0].binary.bytes,
        "nodes_on_cpu": tower.report["nodes_on_cpu"],
        "cosine": cosines(ours, exact),
    }


def cycles(profile: Path, graph: Path, tiles: int) -> dict[str, Any]:
    """The simulator's cycles of a tile: least over runs for every operator, summed by kind."""
    import onnx

    runs = read_runs(profile)
    kinds = {node.name: node.op_type for node in onnx.load_model(graph, load_external_data=False).graph.node}
    least = {name: min(run.get(name, sys.maxsize) for _, run in runs) for name in runs[0][1]}
    by_kind: Counter[str] = Counter()
    for name, value in least.items():
        plain = re.sub(r"_token_\d+$", "", name.partition(":")[0].strip())
        by_kind[kinds.get(plain, "inserted by the compiler")] += value
    dearest = sorted(least, key=lambda name: -least[name])[:3]
    return {
        "of_a_tile": sum(least.values()) / tiles,
        "whole_run_least": min(total for total, _ in runs) / tiles,
        "whole_run_largest": max(total for total, _ in runs) / tiles,
        "by_kind": {kind: value / tiles for kind, value in by_kind.most_common()},
        "dearest_operators": {name.removesuffix(" (cycles)"): least[name] / tiles for name in dearest},
    }


def read_runs(profile: Path) -> list[tuple[int, dict[str, int]]]:
    """Cycles of every run, whole and by operator, from the profiler's table."""
    runs: list[tuple[int, dict[str, int]]] = []
    with profile.open() as stream:
        for row in csv.reader(stream):
            if row[-1].startswith("Accelerator (execute) time (cycles)"):
                runs.append((int(row[2]), {}))
            elif row[1] == "NODE" and row[3] == "CYCLES" and runs:
                runs[-1][1][row[-1]] = int(row[2])
    return runs


def choices(exact: Exact, work: Path) -> dict[str, Any]:
    """At 16 bits: wider ranges, and 8 bits in some places; the simulator's cycles of the latter, run in turns."""
    import onnx

    vision, kept = exact.job.family.vision(exact.job.checkpoint), dict(fixed_scales._ROOM)
    tower = exact.job.family.build_tower(exact.job.checkpoint)
    plain = plain_graph(trace_tower(tower, (vision.tile_height, vision.tile_width), "mha"), 1)

    def fixed(name: str, narrow: Sequence[fixed_scales.Narrow]) -> dict[str, Any]:
        graph = fixed_scales.fix_scales(plain, exact.job.npu_samples, activations=16, narrow=narrow)
        onnx.save_model(graph, work / f"{name}.onnx")
        process = OnCpu(work / f"{name}.onnx")
        return {kind: cosines(encoded(process, tiles, 1), exact.rows[kind]) for kind, tiles in exact.tiles.items()}

    room = {}
    for factor in (1.0, 1.5, 2.0, 4.0):
        fixed_scales._ROOM[16] = factor
        room[f"{factor:g}"] = fixed("room", ())
    fixed_scales._ROOM.update(kept)
    ways: dict[str, Sequence[fixed_scales.Narrow]] = {"none": (), "gelu": ("gelu",), "attention": ("attention",)}
    narrow = {name: {"cosine_cpu_provider": fixed(name, places)} for name, places in ways.items()}
    spent = in_turns({name: work / f"{name}.onnx" for name in ways}, exact.tiles["pages"])
    return {
        "room_at_16_bits": room,
        "eight_bits_at_16": {name: {**found, "cycles": spent[name]} for name, found in narrow.items()},
    }


def in_turns(graphs: Mapping[str, Path], pixels: Array) -> dict[str, dict[str, Any]]:
    """The simulator's cycles of several graphs, a tile of each in turn."""
    library, processes = qnn_library(), {}
    for name, file in graphs.items():
        profile = file.with_suffix(".csv")
        profile.unlink(missing_ok=True)
        watched = {"profiling_level": "detailed", "profiling_file_path": str(profile)}
        processes[name] = NpuProcess(QnnGraph(file=file, architecture="v75", options=watched).through(library))
    for place in range(16):
        for process in processes.values():
            process.run({"pixels": pixels[place % len(pixels)][None]})
    for process in processes.values():
        process.close()
    return {name: cycles(file.with_suffix(".csv"), file, 1) for name, file in graphs.items()}


@dataclass(frozen=True)
class OtherPlace:
    """A graph that takes an NPU's place in a model."""

    file: Path

    def open(self) -> NpuSession:
        """As a tower."""
        return NpuSession(OnCpu(self.file), 1)  # type: ignore[arg-type]


def answers(work: Path, job: Job, pages: int, simulated: int) -> dict[str, Any]:
    """Right answers of the starter with its int8 tower, with the NPU's graph on the CPU, and on the simulator."""
    out = work / "starter-npu.edge"
    shutil.copytree(STARTER, out)
    target = Target("qnn-htp", ("v75",))
    npu = write_npu_towers(replace(job, staging=out, targets=(target,)), target, lambda _: None)
    write_spec(replace(read_bundle(out).spec, npu=npu), out / SPEC_FILE)
    asked = list(evaluate.questions(pages))
    right: dict[str, Array] = {}
    with edge_mllm.load(out, engine="onnx", threads=1, provider="cpu") as model:
        right["int8 on the CPU"] = matches(asked, [say(model, *entry[:2]) for entry in asked])
    with edge_mllm.load(out, engine="onnx", threads=1, provider="cpu", cache_bytes=0) as model:
        place = Placement(npu=OtherPlace(out / npu[0].graph.file))  # type: ignore[arg-type]
        model.pipeline.parts.encoder.tower = VisionTower.of(read_bundle(out), threads=1, place=place)
        right["a16w8 on the CPU provider"] = matches(asked, [say(model, *entry[:2]) for entry in asked])
    few = asked[:: max(1, len(asked) // simulated)][:simulated]
    with edge_mllm.load(out, engine="onnx", threads=1, provider="qnn:v75", cache_bytes=0) as model:
        said = [say(model, *entry[:2]) for entry in few]
    with edge_mllm.load(out, engine="onnx", threads=1, provider="cpu") as model:
        same = [say(model, *entry[:2]) for entry in few]
    plain = right["int8 on the CPU"]
    return {
        "decoder": "onnx int4_b32",
        "questions": len(asked),
        "right": {name: float(found.mean()) for name, found in right.items()},
        "difference": difference(right["a16w8 on the CPU provider"], plain),
        "simulated": {
            "questions": len(few),
            "right": float(matches(few, said).mean()),
            "right_int8": float(matches(few, same).mean()),
            "same_answer_as_int8": float(np.mean([a == b for a, b in zip(said, same, strict=True)])),
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--simulated", type=int, default=30, help="questions that the simulator's tower answers")
    parser.add_argument("--parts", nargs="*", default=["towers", "answers", "large"])
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    found: dict[str, Any] = json.loads(given.out.read_text()) if given.out.is_file() else {}
    library = qnn_library()
    with TemporaryDirectory() as scratch:
        work = Path(scratch)
        job = job_of(work)
        if "towers" in given.parts:
            exact = Exact(job)
            found |= {"towers": towers(exact, work), **choices(exact, work)}
        if "answers" in given.parts:
            found["answers"] = answers(work, job, given.pages, given.simulated)
    where = when_and_where()
    if "large" in given.parts:
        with TemporaryDirectory() as scratch:
            found["large"] = large(Path(scratch)) | where
    if {"towers", "answers"} & {*given.parts}:
        found |= where
    found |= {
        "compiler": {"onnxruntime-qnn": library.version, "qnn": library.sdk},
        "simulated": True,
        "calibration_tiles": len(job.npu_samples),
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
