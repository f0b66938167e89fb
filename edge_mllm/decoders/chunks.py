"""Where a prompt may be cut into runs: anywhere, but not inside a picture whose tokens see each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edge_mllm.decoders.positions import segment_length
from edge_mllm.decoders.protocol import IntArray, Segment, Tokens

TEXT = -1


def block_numbers(segments: Sequence[Segment]) -> IntArray:
    """int64 [n]: for each token the number of the picture's run that it belongs to, -1 for text."""
    numbers = [TEXT if isinstance(part, Tokens) else place for place, part in enumerate(segments)]
    return np.repeat(np.asarray(numbers, np.int64), [segment_length(part) for part in segments])


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
