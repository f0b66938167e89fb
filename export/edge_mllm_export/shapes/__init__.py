"""Checkpoints of random weights in the true shape of published models, for questions of speed and memory only.

Every ``NAME.json`` beside this file is one shape; a new shape is one more file and its name in :data:`SHAPES`.
"""

from edge_mllm_export.shapes.plan import PREFIX, SHAPES, ShapePlan, load_shape
from edge_mllm_export.shapes.tokenizer import TokenizerPlan, build_tokenizer, write_tokenizer
from edge_mllm_export.shapes.write import open_shape, tensor_shapes, write_shape

__all__ = [
    "PREFIX",
    "SHAPES",
    "ShapePlan",
    "TokenizerPlan",
    "build_tokenizer",
    "load_shape",
    "open_shape",
    "tensor_shapes",
    "write_shape",
    "write_tokenizer",
]
