"""Segments: every token and every row exactly once, in order."""

from __future__ import annotations

import numpy as np
import pytest

from edge_mllm.answer.decoding.splice import splice
from edge_mllm.decoders.protocol import Tokens, Visual
from edge_mllm.errors import PromptError
from edge_mllm.prompt.build import PromptIds, Slot

I = 99  # noqa: E741 - the image token, short because the sequences below are read by eye
N = 3


def prompt(ids: list[int], *slots: Slot) -> PromptIds:
    return PromptIds(ids=np.array(ids, np.int64), slots=slots, image_token_id=I, text="")


def rows(count: int, first: int = 0) -> np.ndarray:
    return np.arange(first * N, (first + count) * N, dtype=np.float32).reshape(count, N)


def written(segments: list) -> list:
    """Token ids, and the first number of each visual row as a string."""
    return [
        segment.ids.tolist() if isinstance(segment, Tokens) else [f"v{int(row[0]) // N}" for row in segment.embeddings]
        for segment in segments
    ]


def test_text_alone() -> None:
    segments = splice(prompt([1, 2, 3]), [], N)
    assert written(segments) == [[1, 2, 3]]


def test_tiles_with_markers_between_stay_apart() -> None:
    found = splice(prompt([1, 2, I, I, 7, I, I, 8, 9, I, 3], Slot(2, 8, 5)), [rows(5)], N)
    assert written(found) == [[1, 2], ["v0", "v1"], [7], ["v2", "v3"], [8, 9], ["v4"], [3]]
    assert [type(segment) for segment in found] == [Tokens, Visual, Tokens, Visual, Tokens, Visual, Tokens]
    assert found[1].grid is None


def test_touching_pictures_stay_apart() -> None:
    found = splice(prompt([I, I, I, I, I], Slot(0, 2, 2), Slot(2, 3, 3)), [rows(2), rows(3, 10)], N)
    assert written(found) == [["v0", "v1"], ["v10", "v11", "v12"]]


def test_pictures_with_text_between() -> None:
    found = splice(prompt([I, 5, I, 6], Slot(0, 1, 1), Slot(2, 1, 1)), [rows(1), rows(1, 4)], N)
    assert written(found) == [["v0"], [5], ["v4"], [6]]


def test_a_grid_goes_with_its_picture() -> None:
    found = splice(prompt([1, *[I] * 6, 2], Slot(1, 6, 6)), [rows(6)], N, [(2, 3)])
    assert found[1].grid == (2, 3)
    with pytest.raises(PromptError, match="no grid"):
        splice(prompt([1, *[I] * 6, 2], Slot(1, 6, 6)), [rows(6)], N, [(2, 4)])
    with pytest.raises(PromptError, match="no grid"):
        splice(prompt([I, 1, I], Slot(0, 3, 2)), [rows(2)], N, [(1, 2)])


def test_any_sequence_is_rebuilt_from_its_segments() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        ids, slots, pictures = [], [], []
        for _ in range(rng.integers(0, 4)):
            ids += rng.integers(0, 50, rng.integers(0, 3)).tolist()
            body = [I, *rng.choice([I, 7], rng.integers(0, 8)).tolist(), I]
            slots.append(Slot(len(ids), len(body), body.count(I)))
            pictures.append(rows(body.count(I), first=100 * len(slots)))
            ids += body
        ids += rng.integers(0, 50, 2).tolist()
        found = splice(prompt(ids, *slots), pictures, N)
        back = [i for s in found for i in (s.ids.tolist() if isinstance(s, Tokens) else [I] * len(s.embeddings))]
        assert back == ids
        used = [s.embeddings for s in found if isinstance(s, Visual)]
        assert np.array_equal(np.concatenate([*used, rows(0)]), np.concatenate([*pictures, rows(0)]))


def test_counts_widths_and_types_must_match() -> None:
    one = prompt([1, I, I, 2], Slot(1, 2, 2))
    for wrong in (rows(1), rows(3), rows(2)[:, :2], rows(2).astype(np.float64), rows(2).reshape(1, 2, N)):
        with pytest.raises(PromptError, match=r"picture 1 needs float32 embeddings \[2, 3\]"):
            splice(one, [wrong], N)
    with pytest.raises(PromptError, match="has 1 pictures, embeddings are given for 0"):
        splice(one, [], N)
    with pytest.raises(PromptError, match="has 1 pictures, embeddings are given for 2"):
        splice(one, [rows(2), rows(2)], N)
