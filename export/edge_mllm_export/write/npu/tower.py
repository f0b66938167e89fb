"""The tower with its projector for NPUs: what can be written, and the writer of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mllm.errors import SettingError
from edge_mllm.machine.npu import qnn_library
from edge_mllm_export.job import Announce, Job
from edge_mllm_export.write.npu.qnn import write_qnn_towers
from edge_mllm_export.write.npu.rknn import write_rknn_tower
from edge_mllm_export.write.npu.toolkit import find_toolkit
from edge_mllm_export.write.npu.tower_graph import traced
from edge_mllm_quant.npu.plain_graph import plain_graph

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import NpuTower
    from edge_mllm_export.targets import Target


def check_targets(job: Job, announce: Announce) -> None:
    """Refuse, before anything is written, what cannot be written for an NPU.

    Raises:
        SettingError: The tower takes pictures of any size.
        ExtraMissingError: A compiler is not installed.
        RknnToolkitError: Rockchip's cannot be had.
    """
    vision = job.family.vision(job.checkpoint)
    if vision.patches is not None:
        raise SettingError(
            f"`target`: the tower of {job.family.name} takes pictures of any size and the graph of an NPU has one: "
            "padding pictures to a few sizes would need masks, which these graphs do not have, and resizing them would "
            "show the model other pixels than its own processor does"
        )
    for target in job.targets:
        if target.kind == "rknn":
            find_toolkit(announce)
        else:
            qnn_library()


def write_npu_towers(job: Job, target: Target, announce: Announce) -> tuple[NpuTower, ...]:
    """Write graphs and compiled towers into the job's staging directory.

    Raises:
        NpuNodesError: The NPU does not take some operators.
        NpuFidelityError: Rockchip's simulator gives other embeddings than the float tower.
        NpuError: The compiler refuses the graph, or died.
    """
    if target.kind == "rknn":
        return (write_rknn_tower(job, target, plain_graph(traced(job), 1), announce),)
    return write_qnn_towers(job, target, announce)
