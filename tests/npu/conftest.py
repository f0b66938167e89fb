"""The starter with towers for Hexagon processors, made once a session where the compiler is installed."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from edge_mllm.bundle.files import SPEC_FILE, read_bundle, write_spec

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "edge_mllm" / "starter.edge"
ARCHITECTURES = ("v73", "v75", "v79")
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None, reason="onnxruntime-qnn is not installed"
)


@dataclass(frozen=True)
class NpuStarter:
    """The bundle, and what its tower should give."""

    path: Path
    pixels: np.ndarray
    """Tiles that no scale was taken from, float32 [tiles, 3, height, width]."""
    exact: np.ndarray
    """Embeddings float32 [tiles, tokens, n_embd] of the checkpoint's tower in float32."""
    work: Path
    """Scratch space."""


@pytest.fixture(scope="session")
def npu_starter(tmp_path_factory: pytest.TempPathFactory) -> NpuStarter:
    import torch

    from edge_mllm_export.calibrate.calibration import MEASURING, read_calibration
    from edge_mllm_export.families.registry import find_family
    from edge_mllm_export.job import Job
    from edge_mllm_export.source.source import resolve_source
    from edge_mllm_export.targets import Target
    from edge_mllm_export.write.npu.tower import write_npu_towers
    from edge_mllm_export.write.vision.tower import tower_samples

    folder = tmp_path_factory.mktemp("npu")
    out, work = folder / "starter-npu.edge", folder / "work"
    shutil.copytree(STARTER, out)
    work.mkdir()
    checkpoint = resolve_source(str(ROOT / "starter" / "checkpoint"), work, None)
    family = find_family(checkpoint)

    def tiles(directory: Path | None, most: int) -> tuple[dict[str, np.ndarray], ...]:
        pictures = [picture for probe in read_calibration(directory)[:most] for picture in probe.pictures]
        return tower_samples(checkpoint, family, pictures, most=most)  # type: ignore[return-value]

    target = Target("qnn-htp", ARCHITECTURES)
    job = Job(checkpoint, family, {}, out, work, targets=(target,), npu_samples=tiles(None, 16))
    towers = write_npu_towers(job, target, lambda _: None)
    write_spec(replace(read_bundle(out).spec, npu=towers), out / SPEC_FILE)
    pixels = np.concatenate([feeds["pixels"] for feeds in tiles(MEASURING, 3)])
    with torch.inference_mode():
        exact = family.build_tower(checkpoint)(torch.from_numpy(pixels)).numpy()
    return NpuStarter(out, pixels, exact, work)
