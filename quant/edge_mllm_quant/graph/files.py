"""Save an ONNX graph: one file while protobuf allows it, else with its tensors beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

PROTOBUF_LIMIT = 2**31 - 2**24
"""Bytes of tensors a single protobuf file can hold, with some room for the graph itself."""


def tensor_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of a graph's tensors. protobuf's own ByteSize fails on graphs above 2 GiB."""
    import math

    from onnx.helper import tensor_dtype_to_np_dtype

    return sum(math.prod(t.dims) * tensor_dtype_to_np_dtype(t.data_type).itemsize for t in model.graph.initializer)


def save_graph(model: onnx.ModelProto, path: Path, *, limit: int = PROTOBUF_LIMIT) -> tuple[Path, ...]:
    """Write ``model`` to ``path`` and return the files written (two when the tensors went into ``path`` + ".data")."""
    import onnx

    if tensor_bytes(model) < limit:
        onnx.save_model(model, str(path))
        return (path,)
    data = path.with_name(path.name + ".data")
    onnx.save_model(model, str(path), save_as_external_data=True, location=data.name, size_threshold=1024)
    return path, data
