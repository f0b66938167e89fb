"""Write a shape as a checkpoint directory with random weights."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.hub.progress import byte_progress
from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.checkpoint.shard_writer import ShardWriter
from edge_mllm_export.disk import require_space
from edge_mllm_export.families.registry import own_model_class
from edge_mllm_export.json_files import write_json
from edge_mllm_export.shapes.plan import PREFIX, ShapePlan, load_shape
from edge_mllm_export.shapes.tokenizer import write_tokenizer

if TYPE_CHECKING:
    import torch

_VECTOR_SPREAD = 1 / 32
"""Of norms around 1 and of biases around 0."""
_BLOCK = 1 << 22
"""Random values that all tensors share, each from another place on: 4 million draws instead of billions."""


def open_shape(name: str, scratch: Path) -> Checkpoint:
    """Write the checkpoint of a shape below ``scratch`` and open it.

    Args:
        name: One of :data:`edge_mllm_export.shapes.SHAPES`.
        scratch: Existing directory; 2 bytes per parameter are needed there.

    Raises:
        SourceError: There is no such shape.
    """
    directory = scratch / f"shape-{name}"
    write_shape(load_shape(name), directory)
    return open_checkpoint(directory, id=PREFIX + name, random_weights=True)


def write_shape(plan: ShapePlan, directory: Path, *, seed: int = 0) -> None:
    """Write a whole checkpoint directory with bfloat16 weights, tensor by tensor.

    Raises:
        OutputError: The disk is too small.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for file, document in (
        ("config.json", plan.config),
        ("generation_config.json", plan.generation),
        ("preprocessor_config.json", plan.preprocessor),
        ("processor_config.json", plan.processor),
        ("chat_template.json", {"chat_template": plan.chat_template}),
    ):
        write_json(directory / file, document)
    write_tokenizer(directory, plan.tokenizer, plan.tokenizer_config)
    shapes = tensor_shapes(plan.config)
    total = 2 * sum(math.prod(shape) for shape in shapes.values())
    require_space(directory, total)
    values = _RandomValues(seed)
    with byte_progress("random weights", total) as advance, ShardWriter(directory) as writer:
        for name, shape in shapes.items():
            writer.add(name, values.tensor(name, shape))
            advance(2 * math.prod(shape))


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the stored tensors of a configuration's image-text model class, name -> shape; tied ones once."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    fields = {key: value for key, value in config.items() if key not in ("model_type", "torch_dtype")}
    own = own_model_class(config)
    with torch.device("meta"):
        if own is None:
            model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(config["model_type"], **fields))
        else:
            model = own(own.config_class(**fields))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


class _RandomValues:
    """Normal values with the spread of a fresh initialisation: 1 / sqrt(inputs) for products.

    Norms are near 1 and biases near 0, no two alike: an exporter stores equal constants once, and then files and what
    is done with them would not be those of a trained model.
    """

    def __init__(self, seed: int) -> None:
        import torch

        self._block = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(seed))
        self._scaled: dict[float, torch.Tensor] = {}

    def tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Make one bfloat16 tensor; the same name and shape always give the same values."""
        import torch

        spread = _VECTOR_SPREAD if len(shape) < 2 else 1.0 / math.sqrt(math.prod(shape[1:]))
        values = torch.empty(math.prod(shape), dtype=torch.bfloat16)
        start = 0
        for piece in self._pieces(spread, zlib.crc32(name.encode()) % _BLOCK, values.numel()):
            values[start : start + piece.numel()] = piece
            start += piece.numel()
        if len(shape) < 2 and name.endswith("weight"):
            values += 1
        return values.reshape(shape)

    def _pieces(self, spread: float, offset: int, count: int) -> Iterator[torch.Tensor]:
        import torch

        if spread not in self._scaled:
            self._scaled[spread] = (self._block * spread).to(torch.bfloat16)
        block = self._scaled[spread]
        while count > 0:
            piece = block[offset : offset + count]
            yield piece
            count -= piece.numel()
            offset = 0
