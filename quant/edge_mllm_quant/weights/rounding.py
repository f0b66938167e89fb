"""Choose the codes of a quantised matrix again, so that rounding errors cancel on the data the layer really sees.

GPTQ (Frantar et al., 2022, arXiv:2210.17323, Algorithm 1) with scales that stay as they are: column by column, each
rounding error is spread over the columns still to come along the inverse of the input's second moments. Columns go in
order of decreasing second moment ("act-order" in the authors' code). Because scales and block layout are untouched,
any format whose weights are ``scale * level[code] + offset`` can be refined after another quantiser wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray

if TYPE_CHECKING:
    import torch

CodeArray = npt.NDArray[np.uint8]

DAMPING = 0.01
"""Share of the mean second moment added to the diagonal, as in the paper."""
_BLOCK = 128
"""Columns between two updates of all the columns that follow."""


@dataclass(frozen=True)
class Grid:
    """The values each weight can take: ``scale * levels[code] + offset``."""

    scale: FloatArray
    """float32 [rows, columns]"""
    offset: FloatArray | None
    """float32 [rows, columns]; None is zero."""
    levels: FloatArray
    """float32 [codes], ascending."""

    def values(self, codes: CodeArray) -> FloatArray:
        """The weights that codes uint8 [rows, columns] stand for."""
        weights: FloatArray = self.scale * self.levels[codes]
        return weights if self.offset is None else weights + self.offset


def refine_codes(weights: FloatArray, grid: Grid, products: FloatArray, *, damping: float = DAMPING) -> CodeArray:
    """Return codes uint8 [rows, columns] whose layer output is near that of ``weights`` on the calibration data.

    Args:
        weights: Unquantised, float32 [rows, columns].
        grid: Where they may go.
        products: Mean of x x^T over the layer's inputs, float32 [columns, columns].
        damping: Share of the mean diagonal added to it.
    """
    import torch

    moments = torch.from_numpy(np.array(products, np.float64))  # a copy: what lies in a file cannot be written to
    diagonal = moments.diagonal()
    order = torch.argsort(diagonal, descending=True)
    mean = float(diagonal.mean())
    moments = moments[order][:, order]
    moments.diagonal().add_(damping * mean if mean > 0 else 1.0)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    work = _Work(weights, grid, order.numpy())
    for start in range(0, work.columns, _BLOCK):
        work.block(factor, start, min(start + _BLOCK, work.columns))
    codes = np.empty(weights.shape, np.uint8)
    codes.T[order.numpy()] = work.codes.numpy()
    return codes


class _Work:
    """Weights on their way to codes, transposed: columns in the order of rounding, each contiguous in memory."""

    def __init__(self, weights: FloatArray, grid: Grid, order: npt.NDArray[np.int64]) -> None:
        import torch

        def arranged(values: FloatArray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values.T[order], dtype=np.float32))

        self.weights, self.scale = arranged(weights), arranged(grid.scale)
        self.offset = torch.zeros(1, 1).expand_as(self.weights) if grid.offset is None else arranged(grid.offset)
        self.levels = torch.from_numpy(np.asarray(grid.levels, np.float32))
        self.borders = (self.levels[1:] + self.levels[:-1]) / 2
        self.codes = torch.zeros(self.weights.shape, dtype=torch.uint8)
        self.columns = len(self.weights)

    def block(self, factor: torch.Tensor, start: int, end: int) -> None:
        """Round the columns of one block, then correct all columns after it."""
        import torch

        part, errors = self.weights[start:end], torch.empty(end - start, self.weights.shape[1])
        inner = factor[start:end, start:end]
        for i in range(end - start):
            rounded = self._round(part[i], start + i)
            errors[i] = (part[i] - rounded) / inner[i, i]
            part[i:].addr_(inner[i, i:], errors[i], alpha=-1)
        self.weights[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)

    def _round(self, column: torch.Tensor, place: int) -> torch.Tensor:
        """Nearest values for one column; remembers the codes. A scale of zero leaves the first code."""
        import torch

        scale, offset = self.scale[place], self.offset[place]
        ratio = torch.where(scale == 0, torch.zeros_like(scale), (column - offset) / scale)
        codes = torch.bucketize(ratio, self.borders)
        self.codes[place] = codes.to(torch.uint8)
        return scale * self.levels[codes] + offset
