"""Fill a module that was built on the meta device from a checkpoint, one tensor at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint


def source_shapes(module: torch.nn.Module, prefixes: dict[str, str]) -> dict[str, tuple[int, ...]]:
    """Names in the checkpoint -> shapes of every parameter of ``module``.

    Args:
        module: Parameters may be on the meta device.
        prefixes: Prefix of the parameter name -> prefix of the tensor name in the checkpoint.
    """
    return {_renamed(name, prefixes): tuple(parameter.shape) for name, parameter in module.named_parameters()}


def fill_from_checkpoint(module: torch.nn.Module, checkpoint: Checkpoint, prefixes: dict[str, str]) -> None:
    """Give every parameter of ``module`` its float32 values; names and shapes were compared before.

    Args:
        module: Parameters may be on the meta device.
        checkpoint: Where the tensors are.
        prefixes: As in :func:`source_shapes`.
    """
    for name in [name for name, _ in module.named_parameters()]:
        owner, _, leaf = name.rpartition(".")
        values = checkpoint.tensor(_renamed(name, prefixes)).to(torch.float32)
        setattr(module.get_submodule(owner), leaf, torch.nn.Parameter(values, requires_grad=False))


def _renamed(name: str, prefixes: dict[str, str]) -> str:
    for target, source in prefixes.items():
        if name.startswith(target):
            return source + name.removeprefix(target)
    raise AssertionError(f"parameter {name} is below none of {sorted(prefixes)}")
