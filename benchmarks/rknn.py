"""The starter's tower for Rockchip's NPUs, compiled and run by rknn-toolkit2's simulator, which is no board.

    python benchmarks/rknn.py [--out benchmarks/results/rknn.json]

Cosines are with the checkpoint's tower in float32, over tiles that no scale was taken from: held-out pages, and
pictures unlike any page. The toolkit is the one that the export finds (EDGE_MLLM_RKNN_PYTHON) or makes. Every way of
finding scales of 8 bits is measured, also those that an export would refuse.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from rounds import when_and_where  # noqa: E402

from benchmarks.npu import Exact, cosines, encoded, job_of  # noqa: E402
from edge_mllm.machine.npu import CHIPS  # noqa: E402
from edge_mllm.tower.npu.process import NpuProcess  # noqa: E402
from edge_mllm_export.write.npu import rknn  # noqa: E402
from edge_mllm_export.write.npu.toolkit import Toolkit, find_toolkit  # noqa: E402
from edge_mllm_export.write.npu.tower_graph import traced  # noqa: E402
from edge_mllm_quant.graph.files import save_graph  # noqa: E402
from edge_mllm_quant.npu.older_operators import with_older_operators  # noqa: E402
from edge_mllm_quant.npu.plain_graph import plain_graph  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "rknn.json"


def measured(exact: Exact, toolkit: Toolkit, work: Path, chip: str, way: rknn.Way) -> dict[str, Any]:
    """One compiled tower."""
    out = work / "tower.rknn"
    pages, rows = exact.tiles["pages"], exact.rows["pages"]
    start = time.perf_counter()
    process = NpuProcess(rknn.toolkit_load(toolkit, work, chip, way, rows.shape, pages.shape, out))
    seconds, start = time.perf_counter() - start, time.perf_counter()
    cosine = {kind: cosines(encoded(process, tiles, 1), exact.rows[kind]) for kind, tiles in exact.tiles.items()}
    tiles, left = sum(map(len, exact.tiles.values())), rknn.left_to_cpu(process)
    process.close()
    return {
        "chip": chip,
        "precision": "fp16" if way is rknn.FLOATS else "int8",
        "scales": way.name,
        "kept_by_export": cosine["pages"]["mean"] >= rknn.LEAST["fp16" if way is rknn.FLOATS else "int8"],
        "bytes": out.stat().st_size,
        "compile_s": seconds,
        "simulator_s_per_tile": (time.perf_counter() - start) / tiles,
        "cosine": cosine,
        "operators": len(process.facts["operators"]),
        "left_to_cpu": left,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    toolkit, towers = find_toolkit(lambda text: print(text, flush=True)), []
    with TemporaryDirectory() as scratch:
        work = Path(scratch)
        job = job_of(work)
        exact = Exact(job)
        save_graph(with_older_operators(plain_graph(traced(job), 1)), work / rknn.GRAPH)
        rknn.write_samples(work, job.npu_samples, ())
        cases = [(chip, rknn.FLOATS) for chip in CHIPS] + [(CHIPS[0], way) for way in rknn.WAYS]
        for chip, way in cases:
            towers.append(measured(exact, toolkit, work, chip, way))
            print(json.dumps(towers[-1]), flush=True)
    found = {
        "towers": towers,
        "toolkit": toolkit.version,
        "simulated": True,
        "calibration_tiles": len(job.npu_samples),
        **when_and_where(),
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
