"""Which NPUs there are, and whether a tower can run on them."""

from __future__ import annotations

from collections.abc import Iterable

from edge_mllm.machine.npu import Npu, QnnLibrary
from edge_mllm.machine.rknn import RknnLibrary
from edge_mllm.measure.doctor.facts import Facts, Finding


def npu_findings(facts: Facts) -> Iterable[Finding]:
    """A line for each NPU, or that there is none."""
    for npu in facts.npus:
        if npu.kind == "rockchip":
            yield _rockchip(npu, facts.rknn)
        elif npu.kind != "hexagon":
            yield Finding(
                "info", "NPU", f"found: {npu.label}; no bundle has a tower for it, the processor does the work"
            )
        elif not npu.architecture:
            detail = f"found: {npu.label}; its architecture is not known here"
            yield Finding("warning", "NPU", detail, "name it when you run: edge-mllm run --provider qnn:vNN")
        elif isinstance(facts.qnn, QnnLibrary):
            detail = f"{npu.label}, onnxruntime-qnn {facts.qnn.version} (QNN {facts.qnn.sdk})"
            yield Finding(
                "ok", "NPU", detail, f"for a tower on it: edge-mllm export --target qnn-htp:{npu.architecture}"
            )
        else:
            what, _, remedy = facts.qnn.partition("; type: ")
            yield Finding("info", "NPU", f"found: {npu.label}; {what}", remedy)
    if not facts.npus and isinstance(facts.qnn, QnnLibrary):
        detail = f"none found; onnxruntime-qnn {facts.qnn.version} (QNN {facts.qnn.sdk}) can compile for Hexagon"
        yield Finding("info", "NPU", detail)
    elif not facts.npus:
        yield Finding("info", "NPU", "none found; the processor does all the work")


def _rockchip(npu: Npu, library: RknnLibrary | str) -> Finding:
    if isinstance(library, RknnLibrary):
        detail = f"{npu.label}, librknnrt.so {library.runtime}, rknn-toolkit-lite2 {library.version}"
        remedy = f"for a tower on it: edge-mllm export --target rknn:{npu.architecture}"
        return Finding("ok", "NPU", detail, remedy)
    what, _, remedy = library.partition("; type: ")
    return Finding("info", "NPU", f"found: {npu.label}; {what}", remedy)
