"""The towers for NPUs next to the checkpoint's, on the vendor's simulator or a device of this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edge_mllm.tower.placement import Placement
from edge_mllm_export.verify.agreement import compare_embeddings
from edge_mllm_export.write.npu.rknn import simulated_place

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mllm.arrays import FloatArray
    from edge_mllm.bundle.spec import NpuTower
    from edge_mllm_export.verify.candidate import Candidate, Prepared

SECONDS = 60.0
"""How long further probes are run while the simulator takes its time."""


def compare_npu_towers(
    candidate: Candidate, prepared: Sequence[Prepared], theirs: Sequence[FloatArray], work: Path
) -> list[dict[str, Any]]:
    """Embeddings of every tower for NPUs against the reference's, as many probes as fit :data:`SECONDS`.

    Args:
        candidate: The bundle.
        prepared: Probes; those with the fewest tiles come first.
        theirs: The reference's visual embeddings, one array a probe.
        work: Folder of the job, which Rockchip's simulator compiles a graph from.
    """
    shown = [(item, rows) for item, rows in zip(prepared, theirs, strict=True) if item.pictures]
    shown.sort(key=lambda pair: sum(picture.plan.count for picture in pair[0].pictures))
    return [_compare(candidate, tower, shown, work) for tower in candidate.spec.npu]


def _compare(
    candidate: Candidate, tower: NpuTower, shown: Sequence[tuple[Prepared, FloatArray]], work: Path
) -> dict[str, Any]:
    start, pairs, tiles = time.perf_counter(), [], 0
    opened = candidate.placed_tower(_place(candidate, tower, work), tower.tiles)
    try:
        opened.load()
        for item, rows in shown:
            pairs.append((rows, candidate.encode(item, opened)))
            tiles += sum(picture.plan.count for picture in item.pictures)
            if time.perf_counter() - start > SECONDS:
                break
    finally:
        opened.close()
    found = asdict(compare_embeddings(*map(list, zip(*pairs, strict=True))))
    del found["per_tile"]
    place = opened.place
    return {
        "target": tower.target,
        "precision": tower.precision,
        "tiles_of_a_run": tower.tiles,
        "device": place.device,
        "compiled": bool(tower.contexts),
        **found,
        "tiles": tiles,
    }


def _place(candidate: Candidate, tower: NpuTower, work: Path) -> Placement:
    if tower.target == "rknn":
        return Placement("rknn", npu=simulated_place(candidate.spec, tower, work))
    return candidate.qnn_place(tower.contexts[0].architecture if tower.contexts else "", tower.tiles)
