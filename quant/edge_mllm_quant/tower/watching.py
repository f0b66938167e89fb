"""What goes into the matrix products of a float graph when it runs: peaks and second moments of each channel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm.machine.ort import session_options
from edge_mllm_quant.graph.files import save_graph
from edge_mllm_quant.weights.activations import Moments

if TYPE_CHECKING:
    import onnx

Feeds = Mapping[str, npt.NDArray[Any]]
"""Graph input -> array."""


@dataclass(frozen=True)
class Seen:
    """What one tensor held over all runs."""

    peaks: FloatArray
    """Largest absolute value of each channel, float32 [channels]."""
    lowest: FloatArray
    """Smallest value of each channel, float32 [channels]."""
    highest: FloatArray
    moments: Moments

    @property
    def middle(self) -> FloatArray:
        """Half way between smallest and largest value of each channel, float32 [channels]."""
        middle: FloatArray = ((self.lowest + self.highest) / 2).astype(np.float32)
        return middle


def shared_inputs(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Tensors that go into products with constant matrices -> those products (MatMul, weights [in, out])."""
    constants = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            found[node.input[0]].append(node)
    return dict(found)


def watch_inputs(model: onnx.ModelProto, samples: Iterable[Feeds], *, products_below: int = 0) -> dict[str, Seen]:
    """Run a float graph and note what goes into its products: :func:`watch_values` of these."""
    return watch_values(model, sorted(shared_inputs(model)), samples, products_below=products_below)


def watch_values(
    model: onnx.ModelProto, names: Sequence[str], samples: Iterable[Feeds], *, products_below: int = 0
) -> dict[str, Seen]:
    """Run a float graph and note what some of its tensors hold.

    Args:
        model: float32 graph with its tensors in memory; it stays as it is.
        names: Tensors [..., channels].
        samples: Inputs of each run, at least one.
        products_below: Tensors of fewer channels than this get the whole matrix of second moments.

    Returns:
        Tensor name -> what it held.
    """
    import onnx
    import onnxruntime as ort

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {value.name for value in watched.graph.output}
    fresh = [name for name in names if name not in present]
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in fresh
    )
    sums: dict[str, _Sum] = defaultdict(_Sum)
    with TemporaryDirectory() as scratch:
        save_graph(watched, Path(scratch) / "watched.onnx")
        del watched
        session = ort.InferenceSession(
            str(Path(scratch) / "watched.onnx"), session_options(None), ["CPUExecutionProvider"]
        )
        for feeds in samples:
            for name, values in zip(names, session.run([*names], dict(feeds)), strict=True):
                sums[name].add(values.reshape(-1, values.shape[-1]), products_below)
    return {name: entry.seen() for name, entry in sums.items()}


class _Sum:
    """What was seen so far."""

    def __init__(self) -> None:
        self.rows = 0
        self.lowest: FloatArray = np.full(1, np.inf, np.float32)
        self.highest: FloatArray = np.full(1, -np.inf, np.float32)
        self.total: FloatArray = np.zeros(1, np.float32)

    def add(self, rows: FloatArray, products_below: int) -> None:
        """Take in [positions, channels]."""
        self.rows += len(rows)
        self.lowest, self.highest = np.minimum(self.lowest, rows.min(0)), np.maximum(self.highest, rows.max(0))
        self.total = self.total + (rows.T @ rows if rows.shape[1] < products_below else np.square(rows).sum(0))

    def seen(self) -> Seen:
        mean = self.total / np.float32(self.rows)
        whole = mean if mean.ndim == 2 else None
        peaks = np.maximum(-self.lowest, self.highest)
        squares = mean if whole is None else mean.diagonal().copy()
        return Seen(peaks, self.lowest, self.highest, Moments(self.rows, squares, whole))
