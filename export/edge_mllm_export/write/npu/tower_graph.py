"""The float graph that towers for NPUs begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mllm.errors import SettingError
from edge_mllm_export.write.vision.tower import forget_tracing, trace_tower
from edge_mllm_quant.graph.files import PROTOBUF_LIMIT, save_graph, tensor_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from edge_mllm_export.job import Job


def traced(job: Job) -> onnx.ModelProto:
    """The tower with its projector in float32, with a free number of tiles of fixed size."""
    vision = job.family.vision(job.checkpoint)
    model: onnx.ModelProto = trace_tower(
        job.family.build_tower(job.checkpoint), (vision.tile_height, vision.tile_width), "mha"
    )
    forget_tracing(model)
    return model


def save_whole(model: onnx.ModelProto, file: Path) -> None:
    """Write a graph with its weights in one file, as compilers of NPUs want it.

    Raises:
        SettingError: It is too large for one.
    """
    if tensor_bytes(model) >= PROTOBUF_LIMIT:
        raise SettingError("`target`: the tower does not fit the 2 GB of one file, as NPUs want it")
    save_graph(model, file)
