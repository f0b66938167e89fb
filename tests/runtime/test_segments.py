"""Where prompts are cut into runs."""

from __future__ import annotations

import numpy as np
import pytest

from edge_mllm.decoders.protocol import Tokens, Visual
from edge_mllm.decoders.segments import block_numbers, chunks


def text(count: int) -> Tokens:
    return Tokens(np.zeros(count, np.int64))


def visual(count: int) -> Visual:
    return Visual(np.zeros((count, 4), np.float32))


MIXED = [text(3), visual(4), visual(4), text(2), visual(9), text(1)]


def test_every_picture_has_a_number_of_its_own() -> None:
    expected = [-1] * 3 + [1] * 4 + [2] * 4 + [-1] * 2 + [4] * 9 + [-1]
    assert block_numbers(MIXED).tolist() == expected
    assert block_numbers([]).shape == (0,)


@pytest.mark.parametrize("size", range(1, 30))
def test_no_picture_is_cut(size: int) -> None:
    blocks = block_numbers(MIXED)
    found = list(chunks(blocks, size, whole=True))
    assert [start for start, _ in found] == [0, *(end for _, end in found[:-1])]
    assert found[-1][1] == len(blocks)
    for _, end in found[:-1]:
        assert blocks[end] == -1 or blocks[end] != blocks[end - 1]
    longest = max(9, size)
    assert all(0 < end - start <= longest for start, end in found)


def test_runs_are_as_long_as_they_may_be() -> None:
    blocks = block_numbers(MIXED)
    assert list(chunks(blocks, 8, whole=True)) == [(0, 7), (7, 13), (13, 22), (22, 23)]
    assert list(chunks(blocks, 8, whole=False)) == [(0, 8), (8, 16), (16, 23)]
