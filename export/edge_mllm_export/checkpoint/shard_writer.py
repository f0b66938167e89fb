"""Write safetensors files; shards are written tensor by tensor, so that memory holds one shard at a time.

The library's own sharding (huggingface_hub.save_torch_state_dict) takes a whole model at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mllm_export.checkpoint.tensor_store import INDEX, SINGLE

if TYPE_CHECKING:
    import torch


class ShardWriter:
    """Collects tensors into files of about ``limit`` bytes and writes their index at the end.

    Use as a context manager. The index is written only when the block ends without an error, and a directory without an
    index is no checkpoint. A tensor above the limit gets a file of its own. One file alone is called model.safetensors.
    A full disk is an OSError.
    """

    def __init__(self, directory: Path, *, limit: int = 256 << 20) -> None:
        self._directory, self._limit = directory, limit
        self._pending: dict[str, torch.Tensor] = {}
        self._files: dict[str, str] = {}
        self._pending_bytes = self._total_bytes = self._count = 0

    def __enter__(self) -> ShardWriter:
        self._directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take one tensor; a full shard is written first."""
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._pending_bytes + size > self._limit:
            self._flush()
        self._pending[name] = tensor.contiguous()
        self._pending_bytes += size
        self._total_bytes += size

    def _flush(self) -> None:
        self._count += 1
        file = f"model-{self._count:05d}.safetensors"
        save_tensors(self._pending, self._directory / file)
        self._files |= dict.fromkeys(self._pending, file)
        self._pending, self._pending_bytes = {}, 0

    def _finish(self) -> None:
        if self._pending:
            self._flush()
        if self._count == 1:
            (self._directory / "model-00001.safetensors").rename(self._directory / SINGLE)
            return
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": self._files}
        (self._directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write one safetensors file; tensors that lie in mapped files are copied from there and not held in memory.

    Raises:
        OSError: A write failed. safetensors has the number of the system's error in its text only.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, {"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
