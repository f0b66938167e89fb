"""Towers on Qualcomm's Hexagon NPUs: a compiled one, or a graph that is compiled when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mllm.bundle.spec import NpuTower
from edge_mllm.machine.npu import Npu, NpuError, QnnLibrary
from edge_mllm.tower.npu.place import NpuPlace, checked_graph, find_context
from edge_mllm.tower.npu.process import NpuLoad

if TYPE_CHECKING:
    from edge_mllm.bundle.files import OpenBundle

BACKEND = Path(__file__).with_name("qnn_backend.py")
NO_CPU = {"session.disable_cpu_ep_fallback": "1"}
"""A node that the NPU does not take is an error, and not quietly the CPU's."""
ASSIGNED = "session.record_ep_graph_assignment_info"
"""Entry of a session's configuration with which it can tell which node each provider has."""

HTP_OPTIONS = {
    "htp_graph_finalization_optimization_mode": "3",
    "offload_graph_io_quantization": "0",
    "htp_performance_mode": "burst",
}
"""Compile for speed, convert inputs and outputs on the NPU too, and clock it up while it runs."""
SOC_MODELS = {"v68": "30", "v69": "36", "v73": "43", "v75": "57", "v79": "69", "v81": "87"}
"""Qualcomm's number of a chip with each architecture; float graphs are compiled for a chip."""


@dataclass(frozen=True, kw_only=True)
class QnnGraph:
    """A graph, and how it is opened."""

    file: Path
    architecture: str
    half: bool = False
    """It computes in float16."""
    config: Mapping[str, str] = field(default_factory=lambda: dict(NO_CPU))
    """Entries of the session's configuration."""
    options: Mapping[str, str] = field(default_factory=dict)
    """More options of the provider."""

    def through(self, library: QnnLibrary) -> NpuLoad:
        """What a process is to hold."""
        half = {"enable_htp_fp16_precision": "1", "soc_model": SOC_MODELS[self.architecture]} if self.half else {}
        place = {"backend_path": str(library.backend), "htp_arch": self.architecture.removeprefix("v")}
        request = {
            "library": str(library.provider),
            "config": dict(self.config),
            "options": {**place, **HTP_OPTIONS, **half, **self.options},
            "assigned": ASSIGNED in self.config,
        }
        return NpuLoad(file=self.file, backend=BACKEND, request=request)


def compiled(bundle: OpenBundle, tower: NpuTower, npu: Npu, library: QnnLibrary) -> NpuPlace:
    """The bundle's compiled tower.

    Raises:
        NpuError: There is none for this architecture and this release of the SDK.
        BundleError: A file of it is damaged.
    """
    context = find_context(bundle, tower, npu)
    if ".".join(context.sdk.split(".")[:2]) != library.release:
        raise NpuError(
            f"the tower for {context.architecture} was compiled by QNN {context.sdk}, installed is {library.sdk} "
            f"(onnxruntime-qnn {library.version}); export the model again or install the other version"
        )
    bundle.checked(context.binary)
    graph = QnnGraph(file=checked_graph(bundle, tower, context.graph), architecture=npu.architecture, half=_half(tower))
    return _place(graph, library, tower, npu, context.binary.sha256)


def from_graph(bundle: OpenBundle, tower: NpuTower, npu: Npu, library: QnnLibrary) -> NpuPlace:
    """The bundle's graph, which is compiled when it is loaded.

    Raises:
        NpuError: The NPU's architecture is not known.
        BundleError: The graph is damaged.
    """
    if not npu.architecture:
        raise NpuError(f"the architecture of {npu.label} is not known; say it, as in `provider='qnn:v75'`")
    file = checked_graph(bundle, tower, tower.graph)
    return _place(QnnGraph(file=file, architecture=npu.architecture, half=_half(tower)), library, tower, npu, None)


def _place(graph: QnnGraph, library: QnnLibrary, tower: NpuTower, npu: Npu, binary: str | None) -> NpuPlace:
    own = tower.graph.sha256 if tower.graph is not None else ""
    return NpuPlace(
        load=graph.through(library),
        tiles=tower.tiles,
        npu=npu,
        precision=tower.precision,
        compiled=binary is not None,
        sha256=(binary or own).lower(),
        software=f"qnn {library.sdk}",
    )


def _half(tower: NpuTower) -> bool:
    return tower.precision == "fp16"
