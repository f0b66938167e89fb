"""Prompt lookup: what is guessed, and that guesses never change an answer."""

from __future__ import annotations

import numpy as np
import pytest

import edge_mllm
from edge_mllm import GenerateOptions
from edge_mllm.answer.decoding.cells import CellCache
from edge_mllm.answer.decoding.prompt_lookup import GuessingSteps, Lookup
from edge_mllm.answer.decoding.sampling import SamplingOptions
from edge_mllm.answer.request import Request
from edge_mllm.errors import SettingError

ENGINES = ["onnx", "gguf"]
QUESTION = "What is the total? What is the total? What is the total?"


def test_the_longest_and_most_recent_run_decides():
    assert Lookup([]).guess(4) == []
    assert Lookup([1, 2, 3]).guess(4) == []
    assert Lookup([1, 2, 3, 4, 1, 2]).guess(4) == [3, 4, 1, 2]
    assert Lookup([1, 2, 3, 4, 1, 2]).guess(1) == [3]
    assert Lookup([1, 2, 3, 9, 1, 2, 8, 9, 1, 2]).guess(1) == [8], "the later one"
    assert Lookup([7, 1, 2, 5, 8, 1, 2, 6, 7, 1, 2]).guess(1) == [5], "three tokens before two"
    assert Lookup([1, 2, 3, 1, 4, 1]).guess(3) == [], "one token is not enough"
    assert Lookup([5, 5, 5, 5]).guess(3) == [5], "no further than what was said"
    assert Lookup([1, 2, 3, 1, 2]).guess(0) == []


class CountingDecoder:
    """The next token is the last one plus one, modulo ten. Notes how many tokens each run has."""

    n_vocab, n_ctx, n_embd = 10, 40, 1

    def __init__(self):
        self.cells, self.runs = [], []

    @property
    def n_past(self):
        return len(self.cells)

    def prefill(self, segments, *, all_logits=False):
        ids = np.concatenate([part.ids for part in segments]).tolist()
        self.cells += ids
        self.runs.append(len(ids))
        assert len(self.cells) <= self.n_ctx
        logits = np.eye(10, dtype=np.float32)[(np.array(ids) + 1) % 10]
        return logits if all_logits else logits[-1]

    def step(self, token):
        from edge_mllm.decoders.protocol import Tokens

        return self.prefill([Tokens(np.array([token]))])

    def truncate(self, count):
        del self.cells[count:]


def steps(said, most=4, n_ctx=40):
    decoder = CountingDecoder()
    decoder.n_ctx = n_ctx
    cells = CellCache(decoder)
    ticket, _ = cells.begin([*said, 0], None)
    cells.extend(ticket, said)
    decoder.runs.clear()
    return decoder, cells, GuessingSteps(cells, ticket, said, most)


def count_on(guessing, token, times):
    chosen = []
    for _ in range(times):
        chosen.append(token)
        token = int(np.argmax(guessing(token)))
    return chosen


def test_right_guesses_save_runs():
    decoder, cells, guessing = steps([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
    assert count_on(guessing, 1, 10) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert decoder.runs == [5, 5]
    assert (guessing.guessed, guessing.right) == (8, 8)
    assert list(cells.keys) == decoder.cells


def test_wrong_guesses_are_cut_off():
    decoder, cells, guessing = steps([1, 2, 5, 6, 7, 1])
    assert count_on(guessing, 2, 6) == [2, 3, 4, 5, 6, 7]
    assert decoder.runs[0] == 5
    assert guessing.right < guessing.guessed
    assert list(cells.keys) == decoder.cells
    assert decoder.cells[:11] == [1, 2, 5, 6, 7, 1, 2, 3, 4, 5, 6]


def test_bad_guesses_become_rare():
    """Every pair of tokens was said before; what followed is no help, because the answer is drawn by lot."""
    draw = np.random.default_rng(0)
    decoder, _, guessing = steps(draw.integers(0, 10, 400).tolist(), n_ctx=1000)
    for token in draw.integers(0, 10, 300).tolist():
        guessing(token)
    tried = sum(run > 1 for run in decoder.runs)
    assert 5 < tried < 60
    assert guessing.right < guessing.guessed / 4


def test_guesses_stay_inside_the_context():
    said = [index % 10 for index in range(36)]
    decoder, _, guessing = steps(said, most=16)
    assert count_on(guessing, 6, 4) == [6, 7, 8, 9]
    assert decoder.n_past == decoder.n_ctx


@pytest.fixture(scope="module", params=ENGINES)
def model(tiny_bundle, request):
    with edge_mllm.load(tiny_bundle, engine=request.param, threads=1, kv_type="f32") as loaded:
        yield loaded


@pytest.mark.parametrize("sampling", [SamplingOptions(), SamplingOptions(temperature=0.7, seed=3)])
def test_answers_are_those_without_guesses(model, sampling):
    plain = model.generate(QUESTION, max_new_tokens=120, ignore_eos=True, sampling=sampling)
    guessed = model.generate(QUESTION, max_new_tokens=120, ignore_eos=True, sampling=sampling, prompt_lookup=6)
    assert guessed.text == plain.text
    assert guessed.usage.completion_tokens == plain.usage.completion_tokens
    assert guessed.usage.guessed_tokens >= guessed.usage.right_tokens >= 0
    assert "guessed_tokens" not in plain.to_dict()["usage"]
    assert guessed.to_dict()["usage"]["right_tokens"] == guessed.usage.right_tokens


def test_a_repeated_answer_is_guessed(model):
    """The answer is held to a text of the prompt, so all but its beginning is guessed, and the cache stays right."""
    ids = model.reader.tokenizer.encode(" The total is 12 and the total is 12 and").ids
    forced = _Forced(ids, model.decoder.n_vocab)
    text = "Say: The total is 12 and the total is 12 and"
    pieces = []
    for lookup in (0, 5):
        request = GenerateOptions(max_new_tokens=len(ids), ignore_eos=True, processors=(forced,), prompt_lookup=lookup)
        pieces.append(model.chat().ask(text, **request))
    assert pieces[0].text == pieces[1].text
    assert pieces[1].usage.right_tokens > 3
    after = [model.generate(QUESTION, max_new_tokens=8, ignore_eos=True).text for _ in range(2)]
    assert after[0] == after[1]


class _Forced:
    """Lets one token through: the next one of a text."""

    def __init__(self, ids, n_vocab):
        self._ids, self._n_vocab = ids, n_vocab

    def __call__(self, logits, generated):
        masked = np.full_like(logits, -np.inf)
        masked[self._ids[len(generated)]] = 0
        return masked


@pytest.mark.parametrize("count", [-1, 65])
def test_numbers_outside_the_range(count):
    with pytest.raises(SettingError, match="prompt_lookup"):
        Request(prompt_lookup=count)


def test_recurrent_state_is_refused(tiny_bundle, monkeypatch):
    from edge_mllm.decoders.llama.decoder import LlamaDecoder

    monkeypatch.setattr(LlamaDecoder, "can_cut", False)
    with (
        edge_mllm.load(tiny_bundle, engine="gguf", threads=1) as loaded,
        pytest.raises(SettingError, match="recurrent"),
    ):
        loaded.generate(QUESTION, max_new_tokens=2, prompt_lookup=4)
