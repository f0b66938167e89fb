"""What optimum knows about a checkpoint: task, model class, and the language model's normalised configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import UnsupportedArchitectureError

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family

TASK = "image-text-to-text"
_NAMES = (TASK, "image-to-text")
"""What optimum calls this task; by the second name, an older one, it knows some of the same model classes."""


@dataclass(frozen=True)
class Task:
    """A resolved task."""

    name: str
    model_class: Any
    """The transformers class that config.json names; it makes the reference that the bundle is compared with."""


def resolve_task(checkpoint: Checkpoint, family: Family) -> Task:
    """Ask optimum for the model class and its task; a family may bring a class of its own.

    Raises:
        UnsupportedArchitectureError: transformers has no such class, or its task is not image-text-to-text.
    """
    if family.model_class is not None:
        return Task(TASK, family.model_class())
    from optimum.exporters.tasks import TasksManager

    name = next(name for name in checkpoint.config["architectures"] if name in family.architectures)
    try:
        model_class = TasksManager.get_model_class_for_task(TASK, model_class_name=name)
        found = TasksManager.infer_task_from_model(model_class)
    except (AttributeError, ValueError, KeyError) as error:
        raise UnsupportedArchitectureError(name, family.architectures) from error
    if found not in _NAMES:
        raise UnsupportedArchitectureError(f"{name} ({found})", family.architectures)
    return Task(TASK, model_class)
