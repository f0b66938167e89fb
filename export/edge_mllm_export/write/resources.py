"""What an export takes of the machine, disk and memory, estimated from shapes before anything is written."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from edge_mllm.machine.memory import available_bytes
from edge_mllm_export.calibrate.calibration import PRODUCTS_BELOW
from edge_mllm_export.disk import require_space
from edge_mllm_export.errors import VerificationError
from edge_mllm_export.families.inventory import text_shapes

if TYPE_CHECKING:
    from edge_mllm_export.job import Job

_FLOAT, _HALF = 4, 2
_ROOM = 64 << 20
"""Graphs, tokenizer and rounding."""
_WORKING_ROOM = 1.2
"""The reference's activations, cache and logits, as a factor on its weights."""


def require_disk(job: Job) -> None:
    """Refuse to start when the disk cannot hold the bundle and its scratch files.

    Raises:
        OutputError: With both sizes.
    """
    require_space(job.staging.parent, _bundle_and_scratch_bytes(job))


def require_memory(job: Job, purpose: str, way_out: str) -> None:
    """Refuse to start what needs the checkpoint in float32 when that would not fit the memory.

    Args:
        job: Names the checkpoint.
        purpose: What needs it, for the message.
        way_out: The option that does without.

    Raises:
        VerificationError: With both sizes.
    """
    text, tower = _values(job)
    needed, free = int(_FLOAT * (text + tower) * _WORKING_ROOM), available_bytes()
    if free is not None and free < needed:
        raise VerificationError(
            f"{purpose} needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB "
            f"are free; use {way_out}, or export on a larger machine"
        )


def _values(job: Job) -> tuple[int, int]:
    text = sum(prod(shape) for shape in text_shapes(job.checkpoint, job.family).values())
    return text, sum(prod(shape) for shape in job.family.tower_shapes(job.checkpoint).values())


def _moments_bytes(job: Job) -> int:
    """At most: one matrix of second moments for each linear layer; layers that read the same tensor share theirs."""
    if job.checkpoint.random_weights or not any(recipe.calibrated for recipe in job.recipes.values()):
        return 0
    matrices = [shape for shape in text_shapes(job.checkpoint, job.family).values() if len(shape) == 2]
    return sum(_FLOAT * columns**2 for _, columns in matrices if columns < PRODUCTS_BELOW)


def _bundle_and_scratch_bytes(job: Job) -> int:
    """Bytes of the finished files plus the largest scratch files that exist beside them at one time."""
    text, tower = _values(job)
    table = max(prod(shape) for shape in text_shapes(job.checkpoint, job.family).values())
    finished, scratch = _HALF * text, 0
    for component, recipe in job.recipes.items():
        values = text if component in ("gguf", "onnx", "prompt") else tower
        size = int(values * recipe.bits / 8)
        finished += size + (_HALF * table if component == "onnx" else 0)
        scratch = max(scratch, size if not component.startswith("vision") else _FLOAT * tower)
    # The plain GGUF that llama.cpp quantises is as wide as the source.
    return finished + max(scratch, _HALF * text) + _moments_bytes(job) + _ROOM
