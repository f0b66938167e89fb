"""What flows into the linear layers of a torch module: second moments of the input columns.

The diagonal, the mean square of each column, is llama.cpp's importance matrix; the whole matrix is the Hessian of
GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022),
without its factor of two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mllm.arrays import FloatArray

if TYPE_CHECKING:
    import torch

_ROWS = 512
"""Positions collected before they are added up: one matrix product instead of many thin ones."""


@dataclass(frozen=True)
class Moments:
    """Second moments of one layer's input."""

    rows: int
    """Positions seen."""
    squares: FloatArray
    """Mean square of each column, float32 [columns]."""
    products: FloatArray | None
    """Mean of x x^T, float32 [columns, columns]; None where it was not asked for."""


class Gatherer:
    """Adds up the inputs of linear layers; layers that read the same tensor share one sum."""

    def __init__(self, *, products_below: int, directory: Path | None = None) -> None:
        self._limit, self._directory = products_below, directory
        self._owner: dict[str, str] = {}
        self._sums: dict[str, FloatArray] = {}
        self._rows: dict[str, int] = {}
        self._waiting: dict[str, list[torch.Tensor]] = {}
        self._waiting_rows: Counter[str] = Counter()
        self._last: tuple[Any, str] = (None, "")

    def see(self, name: str, _module: Any, args: tuple[Any, ...]) -> None:
        """A forward pre-hook: remember the input [..., columns] of layer ``name``."""
        last, owner = self._last
        if args[0] is last and self._owner.get(name, owner) == owner:
            self._owner[name] = owner
            return
        self._owner[name] = name
        self._last = (args[0], name)
        rows = args[0].detach().flatten(0, -2).float()
        self._waiting.setdefault(name, []).append(rows.clone())
        self._waiting_rows[name] += len(rows)
        if self._waiting_rows[name] >= _ROWS:
            self._add_up(name)

    def _add_up(self, name: str) -> None:
        import torch

        if not self._waiting.get(name):
            return
        rows = torch.cat(self._waiting[name])
        self._waiting[name], self._waiting_rows[name] = [], 0
        self._rows[name] = self._rows.get(name, 0) + len(rows)
        new = (rows.T @ rows if rows.shape[1] < self._limit else rows.square().sum(0)).numpy()
        if name not in self._sums:
            self._sums[name] = self._empty(new.shape)
        self._sums[name] += new

    def _empty(self, shape: tuple[int, ...]) -> FloatArray:
        if self._directory is None or len(shape) == 1:
            return np.zeros(shape, np.float32)
        path = self._directory / f"products{len(self._sums)}.npy"
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)

    def moments(self) -> Mapping[str, Moments]:
        """Layer name -> what it saw, for the layers that saw anything. Call it once, at the end."""
        for name in self._waiting:
            self._add_up(name)
        own = {name: self._finish(name) for name in [*self._sums]}
        return {name: own[owner] for name, owner in self._owner.items()}

    def _finish(self, name: str) -> Moments:
        mean, rows = self._sums.pop(name), self._rows[name]
        mean /= np.float32(rows)
        if mean.ndim == 1:
            return Moments(rows, mean, None)
        squares = np.array(mean.diagonal(), np.float32)
        if isinstance(mean, np.memmap):
            mean.flush()
            mean = np.lib.format.open_memmap(Path(str(mean.filename)), mode="r")
        return Moments(rows, squares, mean)


@contextmanager
def gathering(module: torch.nn.Module, *, products_below: int = 0, directory: Path | None = None) -> Iterator[Gatherer]:
    """Watch every ``torch.nn.Linear`` inside ``module`` while the context lasts.

    Args:
        module: Names in the result are those of its submodules.
        products_below: Layers with fewer input columns than this get the whole matrix of products.
        directory: Where these matrices lie, as files mapped into memory that the system can write out when memory is
            short; None keeps them in memory. The files must stay as long as the result is used.
    """
    import torch

    gatherer = Gatherer(products_below=products_below, directory=directory)
    hooks = [
        layer.register_forward_pre_hook(partial(gatherer.see, name))
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear)
    ]
    try:
        yield gatherer
    finally:
        for hook in hooks:
            hook.remove()
