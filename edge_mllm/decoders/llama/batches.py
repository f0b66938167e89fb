"""How a prefill is cut into llama.cpp's batches: text and pictures as rows in one, or one after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from edge_mllm.arrays import IntArray
from edge_mllm.decoders.llama.token_rows import TokenRows
from edge_mllm.decoders.protocol import Segment, Tokens, Visual
from edge_mllm.decoders.segments import TEXT, lengths, split_segments, widened


class Batches:
    """Of one model.

    Args:
        find_rows: Finds the embeddings of its token ids, when they are needed first.
        row_width: Width of a picture's rows.
        chunk: Most tokens of a batch.
        whole: Whether a picture's tokens see each other, so that it must go in as one.
    """

    def __init__(self, find_rows: Callable[[], TokenRows | None], row_width: int, chunk: int, *, whole: bool) -> None:
        self._find_rows, self._row_width, self._chunk, self._whole = find_rows, row_width, chunk, whole

    @functools.cached_property
    def rows(self) -> TokenRows | None:
        """Embeddings of token ids; None where the model takes ids only."""
        return self._find_rows()

    def joins(self, segments: Sequence[Segment]) -> bool:
        """Whether pictures and the text around them go in as one."""
        pictures = any(not isinstance(part, Tokens) for part in segments)
        return pictures and not self._whole and len(segments) > 1 and self.rows is not None

    def joined(self, segments: Sequence[Segment]) -> Visual:
        """Segments that :meth:`joins` as one: float32 [n, row_width]."""
        return Visual(np.concatenate([part.embeddings for part in self._as_rows(segments)]))

    def runs(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        """Segments in the batches that they are computed in."""
        if not self.joins(segments):
            return [piece for segment in segments for piece in split_segments([segment], 0, self.ends(segment))]
        rows = self._as_rows(segments)
        return split_segments(rows, 0, self._chunk_ends(sum(lengths(rows))))

    def cuts(self, blocks: IntArray) -> list[int]:
        """Places between the batches of a prefill, see :meth:`edge_mllm.decoders.protocol.Decoder.cuts`."""
        if self._whole:
            return []
        lengths_of_pieces = [len(blocks)]
        if (blocks != TEXT).any() and self.rows is None:  # text and pictures go in one after the other
            changes = np.flatnonzero(np.diff(blocks)) + 1
            lengths_of_pieces = np.diff([0, *changes.tolist(), len(blocks)]).tolist()
        places, start = list[int](), 0
        for length in lengths_of_pieces:
            places += [start + end for end in self._chunk_ends(length)]
            start += length
        return places[:-1]

    def ends(self, segment: Segment) -> list[int]:
        """Where a segment that goes in by itself is cut."""
        (count,) = lengths([segment])
        return [count] if self.whole_picture(segment) else self._chunk_ends(count)

    def whole_picture(self, segment: Segment) -> bool:
        """Whether it is a picture whose tokens see each other."""
        return self._whole and not isinstance(segment, Tokens)

    def _as_rows(self, segments: Sequence[Segment]) -> list[Visual]:
        assert self.rows is not None  # noqa: S101  (only what joins is asked for)
        given = [self.rows(part.ids) if isinstance(part, Tokens) else part.embeddings for part in segments]
        return [Visual(widened(part, self._row_width)) for part in given]

    def _chunk_ends(self, count: int) -> list[int]:
        return [min(start + self._chunk, count) for start in range(0, count, self._chunk)]
