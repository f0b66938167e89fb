"""The tower for Qualcomm's NPUs: quantised with fixed scales, compiled for generations of Hexagon processors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.spec import NpuTower
from edge_mllm.machine.npu import QnnLibrary, qnn_library
from edge_mllm_export.errors import NpuNodesError
from edge_mllm_export.job import Announce, Job
from edge_mllm_export.write.npu.qnn_compiler import compile_graph, nodes_on_cpu
from edge_mllm_export.write.npu.tower_graph import save_whole, traced
from edge_mllm_export.write.place import describe
from edge_mllm_quant.npu.fixed_scales import Bits, fix_scales
from edge_mllm_quant.npu.plain_graph import plain_graph
from edge_mllm_quant.tower.tower import migrated
from edge_mllm_quant.tower.watching import Feeds

if TYPE_CHECKING:
    import onnx

    from edge_mllm_export.targets import Target

_BATCHES: dict[str, tuple[int, ...]] = {"a16w8": (1,), "a8w8": (1, 4), "fp16": (1,)}
"""Tiles of one run. Several tiles of 16 bits ended the simulator on other forms of the graph: they are not written."""
_DEFAULT_ARCHITECTURE = "v75"
"""For which nodes are looked through where nothing is compiled."""


def write_qnn_towers(job: Job, target: Target, announce: Announce) -> tuple[NpuTower, ...]:
    """Write graphs and compiled towers, one for each number of tiles of a run.

    Raises:
        NpuNodesError: The NPU does not take some operators.
        NpuError: The compiler refuses the graph, or died.
    """
    library = qnn_library()
    return tuple(_write(job, target, tiles, library, announce) for tiles in _BATCHES[target.precision])


def _write(job: Job, target: Target, tiles: int, library: QnnLibrary, announce: Announce) -> NpuTower:
    suffix = "" if tiles == 1 else f"-x{tiles}"
    file = job.staging / f"vision.{target.kind}{suffix}.onnx"
    announce(f"writing {file.name}")
    model, report = _graph(job, target, tiles)
    save_whole(model, file)
    half = target.precision == "fp16"
    left = nodes_on_cpu(library, file, (target.architectures or (_DEFAULT_ARCHITECTURE,))[0], half=half)
    if left:
        raise NpuNodesError((target.architectures or (_DEFAULT_ARCHITECTURE,))[0], left)
    contexts = []
    for architecture in target.architectures:
        announce(f"compiling for {target.kind} {architecture}")
        out = job.staging / f"vision.{target.kind}-{architecture}{suffix}.bin"
        contexts.append(compile_graph(library, file, architecture, target.precision, out))
    return NpuTower(
        target=target.kind,
        precision=target.precision,
        tiles=tiles,
        graph=describe(file, target.precision),
        contexts=tuple(contexts),
        report={**report, "operators": len(model.graph.node), "nodes_on_cpu": left},
    )


def _graph(job: Job, target: Target, tiles: int) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The graph to compile, and what was decided about it."""
    model = traced(job)
    if target.precision == "fp16":
        return plain_graph(model, tiles), {}
    samples = in_groups(job.npu_samples, tiles)
    if target.precision == "a16w8":
        return fix_scales(plain_graph(model, tiles), samples, activations=16), {"samples": len(job.npu_samples)}
    bits: Bits = 8
    found = migrated(
        model,
        samples[: max(1, _MEASURED // tiles)],
        lambda candidate: fix_scales(plain_graph(candidate, tiles), samples, activations=bits),
        ways=("none", "norms"),
    )
    return found.model, {**found.report, "samples": len(job.npu_samples)}


_MEASURED = 16
"""Tiles that ways of migrating outliers are compared on."""


def in_groups(samples: tuple[Feeds, ...], tiles: int) -> list[Feeds]:
    """Samples of one tile joined to samples of several; what is left over is left out, but there is at least one."""
    import numpy as np

    if tiles == 1:
        return [*samples]
    count = max(1, len(samples) // tiles)
    groups = [[samples[(first * tiles + offset) % len(samples)] for offset in range(tiles)] for first in range(count)]
    return [{name: np.concatenate([each[name] for each in group]) for name in group[0]} for group in groups]
