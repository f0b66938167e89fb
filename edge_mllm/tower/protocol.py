"""What every vision tower does: pixels of one picture in, its embeddings out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm.picture.tile_plan import Grid

Progress = Callable[[int, int], None]
"""Called with (tiles done, tiles in all) after every batch."""


@dataclass(frozen=True)
class Encoded:
    """What the tower made of one picture."""

    embeddings: FloatArray
    """float32 [tiles, tokens per tile, row_width]; from a tower that gives larger tiles more [1, tokens, row_width]."""
    seconds: float
    """Wall time of the runs, without loading."""
    newline: FloatArray | None = None
    """float32 [n_embd]: what ends the rows of stitched tiles, see :mod:`edge_mllm.tower.stitching`."""

    @property
    def rows(self) -> FloatArray:
        """float32 [tokens of all tiles, row_width], tile after tile."""
        return self.embeddings.reshape(-1, self.embeddings.shape[-1])


class Tower(Protocol):
    """A vision tower with its projector, loaded on first use."""

    row_width: int
    """Width of what it gives for a visual token, which the decoder takes."""

    @property
    def loaded(self) -> bool:
        """Whether it is in memory."""
        ...

    @property
    def tile_tokens(self) -> int | None:
        """Visual tokens of a tile, where its embeddings, bit for bit, depend on nothing but the tile; else None."""
        ...

    @property
    def apart(self) -> bool:
        """Whether it leaves this process's threads alone while it runs, as on an NPU."""
        ...

    @property
    def newline(self) -> FloatArray | None:
        """float32 [n_embd], what ends the rows of stitched tiles; there once it is loaded."""
        ...

    def load(self) -> None:
        """Load it now; does nothing when it is there."""
        ...

    def encode(
        self, pixels: npt.NDArray[Any], progress: Progress | None = None, *, grids: Sequence[Grid] | None = None
    ) -> Encoded:
        """Run it over one picture, given as this kind of tower takes it."""
        ...

    def close(self) -> None:
        """Free it; the next :meth:`encode` loads it again."""
        ...
