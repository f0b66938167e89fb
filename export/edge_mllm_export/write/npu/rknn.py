"""The tower for Rockchip's NPUs: compiled for each chip, and run by the compiler's simulator before it is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.bundle.spec import NpuContext, NpuTower
from edge_mllm.machine.npu import Npu, NpuError
from edge_mllm.tower.npu.place import NpuPlace
from edge_mllm.tower.npu.process import NpuLoad, NpuProcess, NpuSession
from edge_mllm.tower.npu.rknn import ports, shapes
from edge_mllm_export.errors import NpuFidelityError, counted
from edge_mllm_export.job import Announce, Job
from edge_mllm_export.write.npu.toolkit import Toolkit, find_toolkit
from edge_mllm_export.write.npu.tower_graph import save_whole
from edge_mllm_export.write.place import describe
from edge_mllm_quant.npu.older_operators import with_older_operators

if TYPE_CHECKING:
    import onnx

    from edge_mllm.arrays import FloatArray
    from edge_mllm.bundle.spec import BundleSpec
    from edge_mllm_export.targets import Target
    from edge_mllm_quant.tower.watching import Feeds

LEAST = {"fp16": 0.999, "int8": 0.995}
"""Least mean cosine of a visual token with the float tower's, by the simulator."""
GRAPH, SAMPLES = "vision.rknn.onnx", "rknn-samples.txt"
"""What is compiled, in the work folder of a job."""
_BACKEND = Path(__file__).with_name("toolkit_backend.py")
_COMPARED = 4
"""Most tiles that the simulator is asked about; no scale is taken from them where there are others."""


@dataclass(frozen=True)
class Way:
    """How scales of 8 bits are found."""

    name: str
    algorithm: str = "normal"
    hybrid: bool = False
    """Layers whose outputs would lose most stay in 16 bits."""

    @property
    def request(self) -> dict[str, Any]:
        """Settings of the toolkit."""
        config: dict[str, Any] = {"quantized_algorithm": self.algorithm}
        return {"config": config | ({"auto_hybrid_cos_thresh": 0.99} if self.hybrid else {}), "hybrid": self.hybrid}


FLOATS = Way("floats")
WAYS = (
    Way("extremes"),
    Way("divergence", "kl_divergence"),
    Way("divergence, some layers in 16 bits", "kl_divergence", hybrid=True),
)
"""Of 8 bits, tried in this order until one is good enough."""


def write_rknn_tower(job: Job, target: Target, model: onnx.ModelProto, announce: Announce) -> NpuTower:
    """Compile a tower for every chip of a target.

    Args:
        job: Files go into its staging directory, what is compiled into its work folder.
        target: Of this kind.
        model: From :func:`edge_mllm_quant.npu.plain_graph.plain_graph`, one tile; must not be used afterwards.
        announce: Told about each step.

    Raises:
        NpuFidelityError: The simulator gives other embeddings than the float tower.
        NpuError: The toolkit refuses the graph, or died.
        RknnToolkitError: There is no toolkit.
    """
    save_whole(with_older_operators(model), job.work / GRAPH)
    toolkit, held_back = find_toolkit(announce), _held_back(job.npu_samples)
    exact = _exact(job.work / GRAPH, held_back)
    quantised = target.precision == "int8"
    if quantised:
        write_samples(job.work, job.npu_samples, held_back)
    contexts, found, way, most = [], 0.0, FLOATS, Counter[str]()
    for chip in target.architectures:
        announce(f"compiling for {target.kind} {chip}")
        out = job.staging / f"vision.{target.kind}-{chip}.rknn"
        for way in WAYS if quantised else (FLOATS,):
            load = toolkit_load(toolkit, job.work, chip, way, exact.shape, held_back[0]["pixels"].shape, out)
            found, left = _compared(load, held_back, exact)
            if found >= LEAST[target.precision]:
                break
        else:
            raise NpuFidelityError(f"{target.kind} {chip}", target.precision, found, LEAST[target.precision])
        announce(f"{target.kind} {chip}: operators left to the board's CPU: {counted(left) or 'none'}")
        most |= Counter(left)
        binary = describe(out, target.precision)
        contexts.append(NpuContext(architecture=chip, sdk=toolkit.version, binary=binary))
    compared = {"simulated_cosine": found, "compared_tiles": len(held_back)}
    report = {**compared, "scales": way.name, "left_to_cpu": dict(most)}
    return NpuTower(target=target.kind, precision=target.precision, tiles=1, contexts=tuple(contexts), report=report)


def toolkit_load(
    toolkit: Toolkit,
    work: Path,
    chip: str,
    way: Way,
    embeddings: Sequence[int],
    pixels: Sequence[int],
    out: Path | None = None,
) -> NpuLoad:
    """A process that compiles the graph in a work folder and simulates it.

    Args:
        toolkit: Its Python.
        work: With :data:`GRAPH`, and :data:`SAMPLES` for 8 bits.
        chip: As ``rk3588``.
        way: How scales are found.
        embeddings: Shape of the output of any number of tiles.
        pixels: Shape of the input of any number of tiles.
        out: File to write.
    """
    request = {
        "chip": chip,
        "dataset": "" if way is FLOATS else str(work / SAMPLES),
        "out": "" if out is None else str(out),
        **ports((1, *pixels[1:]), (1, *embeddings[1:])),
        **({"config": {}, "hybrid": False} if way is FLOATS else way.request),
    }
    python = (str(toolkit.python), "-I")
    return NpuLoad(file=work / GRAPH, backend=_BACKEND, request=request, python=python)


def simulated_place(spec: BundleSpec, tower: NpuTower, work: Path) -> NpuPlace:
    """A tower that was just written, on the simulator, which compiles it anew.

    Args:
        spec: Of the bundle.
        tower: For Rockchip's NPUs.
        work: The job's work folder.

    Raises:
        RknnToolkitError: There is no toolkit.
    """
    context, toolkit = tower.contexts[0], find_toolkit()
    way = next((way for way in WAYS if way.name == tower.report["scales"]), FLOATS)
    pixels, embeddings = shapes(spec, 1)
    load = toolkit_load(toolkit, work, context.architecture, way, embeddings, pixels)
    return NpuPlace(
        load=load,
        tiles=tower.tiles,
        npu=Npu("rockchip", context.architecture.upper(), context.architecture, simulated=True),
        precision=tower.precision,
        compiled=True,
        sha256=context.binary.sha256.lower(),
        software=f"rknn-toolkit2 {toolkit.version}",
    )


def _held_back(samples: Sequence[Feeds]) -> Sequence[Feeds]:
    """Every so many of them."""
    step = max(1, len(samples) // _COMPARED)
    return samples[step - 1 :: step][:_COMPARED]


def write_samples(work: Path, samples: Sequence[Feeds], held_back: Sequence[Feeds]) -> None:
    """One .npy for each sample that is not compared, and the file that names them."""
    apart = {id(feeds) for feeds in held_back}
    kept = [feeds for feeds in samples if id(feeds) not in apart] or samples
    names = []
    for number, feeds in enumerate(kept):
        names.append(str(work / f"rknn-sample-{number}.npy"))
        np.save(names[-1], feeds["pixels"])
    (work / SAMPLES).write_text("\n".join(names) + "\n", "utf-8")


def _exact(graph: Path, samples: Sequence[Feeds]) -> FloatArray:
    """Embeddings float32 [tiles, tokens, row_width] of the float graph."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, dict(feeds))[0] for feeds in samples])


def _compared(load: NpuLoad, samples: Sequence[Feeds], exact: FloatArray) -> tuple[float, dict[str, int]]:
    """Mean cosine over visual tokens, and operators that the compiler leaves to the board's CPU."""
    process = NpuProcess(load)
    try:
        left = left_to_cpu(process)
        pixels = np.concatenate([feeds["pixels"] for feeds in samples])
        (ours,) = NpuSession(process, 1).run(["embeddings"], {"pixels": pixels})
    finally:
        process.close()
    a, b = ours.astype(np.float64), exact.astype(np.float64)
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).mean()), left


def left_to_cpu(process: NpuProcess) -> dict[str, int]:
    """Kinds of operators that the NPU does not take -> how many of them.

    Args:
        process: Of :func:`toolkit_load`.

    Raises:
        NpuError: The toolkit did not tell where its operators run.
    """
    operators = process.facts["operators"]
    if not operators:
        raise NpuError("rknn-toolkit2 did not tell where the operators run; its version may be too new")
    return dict(sorted(Counter(kind for kind, place in operators if place == "CPU").items()))
