"""How likely an option is as the answer: the tokens the template makes of it, and their log-probabilities."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_mllm.answer.decoding.cells import CellCache
from edge_mllm.answer.decoding.logprobs import widened
from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.errors import PromptError

OptionLogprobs = npt.NDArray[np.float64]
"""Natural log-probabilities float64 [n] of the n tokens of an option."""
_AT_ONCE = 16
"""Most tokens of an option in one run of the decoder: each gives a row of logits as long as the vocabulary."""


@dataclass(frozen=True)
class ScoredOptions:
    """Options after one prompt."""

    logprobs: tuple[OptionLogprobs, ...]
    """Of each option, in order."""
    tokens: int
    """Tokens of options that went through the decoder."""
    runs: int
    """Runs of the decoder that they took."""


def option_ids(prompt: IntArray, answered: IntArray, stop_ids: Collection[int], option: str) -> IntArray:
    """Return the tokens of an answer, the stop token included, as the model's own template writes them.

    Args:
        prompt: Token ids int64 [n] of the question, up to where the model begins to speak.
        answered: Token ids of the same conversation with the option as the model's turn.
        stop_ids: Tokens that end a turn.
        option: The option's text, for the message.

    Raises:
        PromptError: The answered conversation does not continue the prompt, or does not end the turn.

    What a template writes only where an answer is still to come (an empty thought) is passed over: behind the last
    message's end the two may part, and the option is what the answered conversation has from there.
    """
    start = _common(prompt, answered)
    said = np.flatnonzero(np.isin(prompt, list(stop_ids)))
    if len(answered) <= start or (start < len(prompt) and (not len(said) or start <= said[-1] + 1)):
        raise PromptError(f"the chat template does not continue the prompt with the option {option!r}; use letters")
    rest = answered[start:]
    ends = np.flatnonzero(np.isin(rest, list(stop_ids)))
    if not len(ends):
        raise PromptError(f"the chat template writes no stop token after the option {option!r}; use letters")
    return rest[: ends[0] + 1]


def _common(prompt: IntArray, answered: IntArray) -> int:
    """How many tokens both begin with."""
    length = min(len(prompt), len(answered))
    differs = np.flatnonzero(prompt[:length] != answered[:length])
    return int(differs[0]) if len(differs) else length


def token_logprobs(logits: FloatArray, ids: IntArray) -> OptionLogprobs:
    """Natural log-probabilities of tokens.

    Args:
        logits: float32 [n, n_vocab]; row k is what token k was chosen from.
        ids: int64 [n].
    """
    rows, totals = widened(logits)
    found: OptionLogprobs = rows[np.arange(len(ids)), ids] - totals[:, 0]
    return found


def score_options(cells: CellCache, ticket: object, first: FloatArray, options: Sequence[IntArray]) -> ScoredOptions:
    """Score options after the prompt that lies in the cache, which is the same again afterwards.

    The first token of every option is read from the logits that the prompt gave. What follows takes one run of the
    decoder for each option (for each 16 tokens of it); options that differ in their last token only share it, and an
    option of one token needs none. A run holds tokens of one option alone, because 4-bit kernels round by the size of
    a run: what an option scores depends neither on the other options nor on their order.

    Args:
        cells: Holds the prompt.
        ticket: From :meth:`edge_mllm.answer.decoding.cells.CellCache.begin`.
        first: Logits float32 [n_vocab] after the prompt.
        options: Token ids int64 [n >= 1] of each.

    Raises:
        EngineError: The decoder failed, or another answer was begun meanwhile.
    """
    walks: dict[tuple[int, ...], _Walk] = {}
    found = []
    for ids in options:
        said = tuple(ids[:-1].tolist())
        if said not in walks:
            walks[said] = _walk(cells, ticket, first, ids[:-1])
        walk = walks[said]
        found.append(np.concatenate([walk.logprobs, token_logprobs(walk.last[None], ids[-1:])]))
    return ScoredOptions(tuple(found), sum(map(len, walks)), sum(walk.runs for walk in walks.values()))


@dataclass(frozen=True)
class _Walk:
    """What the model said of all tokens of an option but the last."""

    logprobs: OptionLogprobs
    last: FloatArray
    """Logits float32 [n_vocab] that the last token is chosen from."""
    runs: int


def _walk(cells: CellCache, ticket: object, first: FloatArray, ids: IntArray) -> _Walk:
    logprobs, last = [np.zeros(0)], first
    parts = [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]
    if not parts:
        return _Walk(logprobs[0], first, 0)
    with cells.aside(ticket):
        for part in parts:
            rows = cells.extend(ticket, part.tolist()) if len(part) > 1 else cells.step(ticket, int(part[0]))[None]
            logprobs.append(token_logprobs(np.concatenate([last[None], rows[:-1]]), part))
            last = rows[-1]
    return _Walk(np.concatenate(logprobs), last, len(parts))
