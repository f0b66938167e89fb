"""Qualcomm's compiler, which needs no device: a graph becomes a binary for one generation of Hexagon processors.

ONNX Runtime writes the binary and a graph of one node that names it (EPContext). Everything runs in a process of its
own, so that a compiler that dies is an error here.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mllm.bundle.spec import NpuContext
from edge_mllm.machine.npu import NpuError, QnnLibrary
from edge_mllm.tower.npu.process import NpuProcess
from edge_mllm.tower.npu.qnn import ASSIGNED, NO_CPU, QnnGraph
from edge_mllm_export.errors import NpuNodesError
from edge_mllm_export.write.place import describe

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import NpuPrecision

_CPU = "CPUExecutionProvider"


def nodes_on_cpu(library: QnnLibrary, graph: Path, architecture: str, *, half: bool) -> dict[str, int]:
    """Kinds of operators that the NPU does not take -> how many of them.

    Raises:
        NpuError: The compiler refuses the graph, or died.
    """
    shown = QnnGraph(file=graph, architecture=architecture, half=half, config={ASSIGNED: "1"})
    process = NpuProcess(shown.through(library))
    try:
        left = Counter(kind for provider, _, kind in process.facts["nodes"] if provider == _CPU)
    finally:
        process.close()
    return dict(sorted(left.items()))


def compile_graph(
    library: QnnLibrary, graph: Path, architecture: str, precision: NpuPrecision, out: Path
) -> NpuContext:
    """Compile a graph; ``out`` is the binary, and the graph that names it gets the same name with ``.onnx``.

    Args:
        library: The plug-in.
        graph: Quantised, or float for ``fp16``.
        architecture: As ``v75``.
        precision: Of the graph.
        out: As ``vision.qnn-htp-v75.bin``.

    Raises:
        NpuNodesError: Operators would be left to the CPU.
        NpuError: The compiler refuses the graph, or died.
    """
    half, wrapper = precision == "fp16", out.with_suffix(".onnx")
    config = {
        **NO_CPU,
        "ep.context_enable": "1",
        "ep.context_embed_mode": "0",
        "ep.context_file_path": str(wrapper),
    }
    try:
        NpuProcess(QnnGraph(file=graph, architecture=architecture, half=half, config=config).through(library)).close()
    except NpuError:
        left = nodes_on_cpu(library, graph, architecture, half=half)
        if left:
            raise NpuNodesError(architecture, left) from None
        raise
    sdk = _name_binary(wrapper, out)
    return NpuContext(
        architecture=architecture, sdk=sdk, graph=describe(wrapper, precision), binary=describe(out, precision)
    )


def _name_binary(wrapper: Path, out: Path) -> str:
    """Give the binary our name, in its file and in the graph; return the SDK's version."""
    import onnx

    model = onnx.load_model(wrapper)
    node = next(node for node in model.graph.node if node.op_type == "EPContext")
    facts = {attribute.name: attribute for attribute in node.attribute}
    (wrapper.parent / facts["ep_cache_context"].s.decode()).rename(out)
    facts["ep_cache_context"].s = out.name.encode()
    onnx.save_model(model, wrapper)
    return ".".join(facts["ep_sdk_version"].s.decode().removeprefix("v").split(".")[:3])
