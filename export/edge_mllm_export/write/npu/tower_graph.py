"""The float graph that towers for NPUs begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mllm_export.write.vision.tower import forget_tracing, trace_tower

if TYPE_CHECKING:
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
