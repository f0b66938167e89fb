"""What a decoder is given, counted, checked and cut: segments of text tokens and of pictures' visual tokens.

A prompt may be cut into runs anywhere, but not inside a picture whose tokens see each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.decoders.protocol import Segment, Tokens, Visual
from edge_mllm.errors import EngineError

TEXT = -1


def lengths(segments: Sequence[Segment]) -> list[int]:
    """Cells that each segment takes."""
    return [len(each.ids) if isinstance(each, Tokens) else len(each.embeddings) for each in segments]


def visual_tokens(segments: Sequence[Segment], n_past: int) -> int | None:
    """How many of the cells, once these segments are there, are of pictures; None where cells from before hide it."""
    if n_past:
        return None
    return sum(len(segment.embeddings) for segment in segments if isinstance(segment, Visual))


def split_segments(segments: Sequence[Segment], skip: int, borders: Sequence[int]) -> list[list[Segment]]:
    """Segments without their first ``skip`` cells, grouped so that a group ends at every border.

    Borders lie between segments, within text, or within a picture whose tokens have no grid.
    """
    groups: list[list[Segment]] = [[]]
    done = 0
    for segment, length in zip(segments, lengths(segments), strict=True):
        start, end = min(length, max(0, skip - done)), done + length
        within = [border - done for border in borders if done + start < border < end]
        for first, last in pairwise([start, *sorted(within), length]):
            if first < last:
                groups[-1].append(segment if last - first == length else _part(segment, slice(first, last)))
            if done + last in borders and groups[-1]:
                groups.append([])
        done = end
    return [group for group in groups if group]


def _part(segment: Segment, which: slice) -> Segment:
    """Some of a segment's cells."""
    places = None if segment.places is None else segment.places[:, which]
    if isinstance(segment, Tokens):
        return Tokens(segment.ids[which], places)
    kept = None if segment.kept is None else segment.kept[which]
    return Visual(segment.embeddings[which], segment.grid, kept, places)


def block_numbers(segments: Sequence[Segment]) -> IntArray:
    """int64 [n]: for each token the number of the picture's run that it belongs to, -1 for text."""
    numbers = [TEXT if isinstance(part, Tokens) else place for place, part in enumerate(segments)]
    return np.repeat(np.asarray(numbers, np.int64), lengths(segments))


def chunks(blocks: IntArray, size: int, *, whole: bool) -> Iterator[tuple[int, int]]:
    """Start and end of each run.

    Args:
        blocks: From :func:`block_numbers`.
        size: Most tokens of a run.
        whole: Keep every picture's run in one piece. A run is then shorter so that a picture begins the next one, and
            longer only where one picture alone has more than ``size`` tokens.
    """
    start, count = 0, len(blocks)
    while start < count:
        end = min(start + size, count)
        if whole and end < count and blocks[end] != TEXT and blocks[end] == blocks[end - 1]:
            inside = np.flatnonzero(blocks == blocks[end])
            end = int(inside[0]) if inside[0] > start else int(inside[-1]) + 1
        yield start, end
        start = end


def widened(rows: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """Rows [n, width or less] with zeros behind them: what a token without rows for further layers takes."""
    if rows.shape[1] == width:
        return rows
    wide = np.zeros((len(rows), width), rows.dtype)
    wide[:, : rows.shape[1]] = rows
    return wide


def check_segments(segments: Sequence[Segment], row_width: int, n_vocab: int) -> int:
    """Check ids and shapes before anything native sees them; return the number of cells.

    Raises:
        EngineError: A token id is outside the vocabulary, or embeddings have the wrong shape, type or values.
    """
    for segment in segments:
        if isinstance(segment, Tokens):
            _check_ids(segment.ids, n_vocab)
        else:
            _check_embeddings(segment.embeddings, row_width)
    return sum(lengths(segments))


def _check_ids(ids: npt.NDArray[np.int64], n_vocab: int) -> None:
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise EngineError(f"token ids must be integers [n], got {ids.dtype} {list(ids.shape)}")
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= n_vocab):
        wrong = ids.max() if ids.max() >= n_vocab else ids.min()
        raise EngineError(f"token id {int(wrong)} is outside the vocabulary of {n_vocab}")


def _check_embeddings(embeddings: FloatArray, row_width: int) -> None:
    if embeddings.dtype != np.float32 or embeddings.ndim != 2 or embeddings.shape[1] != row_width:
        raise EngineError(
            f"visual embeddings are {embeddings.dtype} {list(embeddings.shape)}, "
            f"the decoder takes float32 [n, {row_width}]"
        )
    if not np.isfinite(embeddings).all():
        raise EngineError("visual embeddings hold values that are not numbers; the tower or the picture is damaged")
