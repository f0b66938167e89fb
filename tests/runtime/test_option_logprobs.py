"""Options by log-probability: which tokens are scored, and that how they are computed changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from edge_mllm.answer.decoding.cells import CellCache
from edge_mllm.answer.decoding.options import option_ids, score_options, token_logprobs
from edge_mllm.decoders.protocol import Mark
from edge_mllm.errors import PromptError

STOP = (9,)
VOCABULARY = 7


def ids(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


class Toy:
    """A decoder whose logits are drawn from all cells before them; notes the size of every run."""

    n_embd, n_vocab, n_ctx = 4, VOCABULARY, 100

    def __init__(self, can_cut: bool = True):
        self.can_cut = can_cut
        self.cells: list[int] = []
        self.runs: list[int] = []

    @property
    def n_past(self):
        return len(self.cells)

    def row(self):
        return np.random.default_rng([1, *self.cells]).normal(size=VOCABULARY).astype(np.float32)

    def step(self, token):
        self.runs.append(1)
        self.cells.append(token)
        return self.row()

    def prefill(self, segments, *, all_logits=False):
        rows = []
        for token in np.concatenate([segment.ids for segment in segments]).tolist():
            self.cells.append(token)
            rows.append(self.row())
        self.runs.append(len(rows))
        return np.stack(rows) if all_logits else rows[-1]

    def truncate(self, n_past):
        assert self.can_cut or n_past in (0, len(self.cells))
        del self.cells[n_past:]

    def mark(self):
        return Mark(len(self.cells), (np.array(self.cells),))

    def rewind(self, mark):
        self.cells = mark.arrays[0].tolist()


def prompted(decoder: Toy) -> tuple[CellCache, object, np.ndarray]:
    cells = CellCache(decoder)
    ticket, _ = cells.begin([1, 2, 3], None)
    logits = cells.extend(ticket, [1, 2, 3])[-1]
    decoder.runs.clear()
    return cells, ticket, logits


def by_hand(option: np.ndarray) -> np.ndarray:
    """One token after the other, in a decoder of its own."""
    decoder = Toy()
    cells, ticket, logits = prompted(decoder)
    found = []
    for token in option.tolist():
        found.append(token_logprobs(logits[None], ids(token))[0])
        logits = cells.step(ticket, token)
    return np.asarray(found)


def test_an_option_ends_with_its_first_stop_token() -> None:
    # prompt, " a", " cat", stop, newline, next turn
    assert option_ids(ids(1, 2, 3), ids(1, 2, 3, 5, 6, 9, 4, 9), STOP, "a cat").tolist() == [5, 6, 9]


def test_what_a_template_writes_only_before_an_answer_is_passed_over() -> None:
    # question, stop, "assistant", an empty thought; the same with " cat", stop in the thought's place
    assert option_ids(ids(1, 9, 2, 7, 7), ids(1, 9, 2, 5, 9, 4), STOP, "cat").tolist() == [5, 9]
    with pytest.raises(PromptError, match="does not continue"):  # apart where the answer is announced
        option_ids(ids(1, 9, 2, 7), ids(1, 9, 3, 5, 9), STOP, "cat")


def test_a_template_that_does_not_continue_the_prompt_is_refused() -> None:
    for answered in (ids(1, 2), ids(1, 2, 3), ids(1, 7, 3, 5, 9)):
        with pytest.raises(PromptError, match="does not continue the prompt with the option 'cat'"):
            option_ids(ids(1, 2, 3), answered, STOP, "cat")
    with pytest.raises(PromptError, match="no stop token after the option 'cat'"):
        option_ids(ids(1), ids(1, 5), STOP, "cat")


def test_logprobs_are_stable_and_exact() -> None:
    logits = np.log(np.asarray([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32))
    expected = np.log([0.25, 0.8])
    assert token_logprobs(logits, ids(1, 2)) == pytest.approx(expected, abs=1e-6)
    assert token_logprobs(logits + np.float32(1000), ids(1, 2)) == pytest.approx(expected, abs=1e-3)
    assert token_logprobs(np.asarray([[0.0, -1e30]], np.float32), ids(0)) == 0.0


@pytest.mark.parametrize("can_cut", [True, False])
def test_options_are_scored_as_one_by_one_and_leave_the_cache_as_it_was(can_cut) -> None:
    decoder = Toy(can_cut)
    cells, ticket, logits = prompted(decoder)
    options = [ids(4), ids(4, 5, 6), ids(4, 5, 0), ids(2, 6), ids(*range(7), *range(7), *range(7))]
    found = score_options(cells, ticket, logits, options)
    for option, logprobs in zip(options, found.logprobs, strict=True):
        assert logprobs == pytest.approx(by_hand(option), abs=1e-12)
    assert decoder.cells == [1, 2, 3] and cells.keys == (1, 2, 3)
    assert decoder.runs == [2, 1, 16, 4]  # one token: none; the same but for the last: one together; long: in parts
    assert (found.runs, found.tokens) == (4, 2 + 1 + 20)


def test_a_state_that_cannot_be_cut_is_begun_again() -> None:
    """A second prompt failed: the cache was to be cut back to what both have in common."""
    decoder = Toy(can_cut=False)
    cells, _, _ = prompted(decoder)
    assert cells.begin([1, 2, 4, 5], None)[1] == 0 and decoder.cells == []
    cells, _, _ = prompted(decoder)
    assert cells.begin([1, 2, 3, 5], None)[1] == 3 and decoder.cells == [1, 2, 3]
