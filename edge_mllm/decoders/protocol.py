"""What every decoder engine offers: segments in, logits out, and a cache that can be cut back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from edge_mllm.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Tokens:
    """A run of text tokens: ids int64 [n].

    ``places`` int64 [axes + 1, n] has the position of each token by axis, and below the position that follows it (for
    marks of a picture: the whole picture). None where tokens are counted on from what is before them.
    """

    ids: IntArray
    places: IntArray | None = None


@dataclass(frozen=True)
class Visual:
    """One picture's visual tokens: rows float32 [n, row_width] and their position scheme.

    ``grid`` is (rows, columns) of visual tokens for 2-D position schemes, None where positions run on like text. Where
    only some of the grid's tokens are there, ``kept`` int64 [n] names their places in it, in order. With ``places``, as
    :class:`Tokens` has them, neither is looked at.
    """

    embeddings: FloatArray
    grid: tuple[int, int] | None = None
    kept: IntArray | None = None
    places: IntArray | None = None


Segment = Tokens | Visual


@dataclass(frozen=True)
class DecoderState:
    """What a decoder's cache holds, as plain arrays."""

    after: IntArray
    """int64 [n]: for each cell the position that follows it."""
    arrays: tuple[npt.NDArray[Any], ...]
    """The engine's own; meant for the same engine with the same model and settings."""


@dataclass(frozen=True)
class Mark:
    """A place that the cache can go back to: what of it cannot be cut back, as it was there.

    Keys and values of the cells before it stay where they are, so it holds for as long as those do.
    """

    n_past: int
    arrays: tuple[npt.NDArray[Any], ...] = ()
    """The engine's own."""


class Decoder(Protocol):
    """A language model with a KV cache. One sequence, batch size 1."""

    n_embd: int
    row_width: int
    """Width of a :class:`Visual`'s rows: n_embd, and as much again for every layer that takes rows of its own."""
    n_vocab: int
    n_ctx: int
    """Most cells the cache may grow to."""

    @property
    def n_past(self) -> int:
        """Cells in the KV cache."""
        ...

    @property
    def cell_bytes(self) -> int | None:
        """Bytes of the keys and values of one cell; None while the decoder is not loaded."""
        ...

    @property
    def can_cut(self) -> bool:
        """Whether :meth:`truncate` goes to any place, and not to 0 only as with recurrent state.

        Where it does not, :meth:`rewind` goes to places that :meth:`mark` was called at.
        """
        ...

    def reserve(self, n_cells: int) -> None:
        """Make room for ``n_cells`` in one go, so that the cache need not grow (and be copied) later."""
        ...

    def warm(self, count: int) -> None:
        """Load what a prefill of ``count`` tokens will use and is not in memory yet, so that it is timed as loading."""
        ...

    def waiting_bytes(self, count: int) -> int:
        """Bytes of the files that :meth:`warm` would load, where the decoder itself is loaded."""
        ...

    def embed(self, ids: IntArray) -> FloatArray:
        """Embeddings float32 [n, n_embd] of token ids int64 [n]: widened to rows they can stand for the ids.

        Raises:
            EngineError: An id is outside the vocabulary, or this model's tokens are more than rows of a table.
        """
        ...

    def prefill(self, segments: Sequence[Segment], *, all_logits: bool = False) -> FloatArray:
        """Append segments; return the logits of the last position [n_vocab], or of every position [n, n_vocab]."""
        ...

    def runs(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        """Segments in pieces: a :meth:`prefill` of one after the other computes bit for bit what one of all does.

        Embeddings are not read: they may still be on their way. One piece where there is no such place to cut.
        """
        ...

    def cuts(self, blocks: IntArray) -> Sequence[int]:
        """Places inside one prefill, ascending, from which it may be gone on with bit for bit.

        Where the cache holds the cells before such a place, from a prefill that began with the same cells and went on
        behind it, a prefill of the rest alone computes what one of all does. None where there is no such place; asked
        only where :attr:`can_cut` says yes.

        Args:
            blocks: Of the prefill, as :func:`edge_mllm.decoders.segments.block_numbers` gives them.
        """
        ...

    def step(self, token: int) -> FloatArray:
        """Append one token and return logits float32 [n_vocab]."""
        ...

    def truncate(self, n_past: int) -> None:
        """Forget every cell from ``n_past`` on."""
        ...

    def mark(self) -> Mark:
        """Note the present place, so that :meth:`rewind` can go back to it; copies what cannot be cut back."""
        ...

    def rewind(self, mark: Mark) -> None:
        """Forget every cell behind a mark; the next logits are bit for bit those that followed it.

        Args:
            mark: Of this decoder; the cells before it must be the same ones as then.

        Raises:
            EngineError: There are fewer cells than the mark has.
        """
        ...

    def state(self) -> DecoderState:
        """A copy of the cache."""
        ...

    def restore(self, state: DecoderState) -> None:
        """Replace the cache's contents; the next logits are bit for bit those of the decoder it was copied from."""
        ...

    def close(self) -> None:
        """Free native memory; the object is unusable afterwards."""
        ...
