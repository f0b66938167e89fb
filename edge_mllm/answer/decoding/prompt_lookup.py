"""Several tokens of an answer for one run of the decoder, where the answer repeats what was said before.

When the last few tokens already stand somewhere in the prompt or the answer, what followed them there is a good guess
of what follows now: reading a page aloud, filling in a form, quoting a question. The decoder computes the guessed
tokens together, in little more time than one; those that the sampler would have chosen anyway stay, the rest are cut
off the cache. No second model is needed. Sources: Yang et al., "Inference with Reference", arXiv 2304.04487; Saxena,
"Prompt Lookup Decoding", 2023.

Every token is still chosen by the sampler from logits that the model computed for exactly the tokens before it. An
answer can differ from one without guesses only where two tokens are so close that the engine's rounding decides: its
kernels round a batch of several tokens otherwise than a single one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edge_mllm.answer.decoding.cells import CellCache
from edge_mllm.arrays import FloatArray

_LONGEST, _SHORTEST = 3, 2
"""Tokens that must have occurred before for a guess; after one alone most guesses are wrong."""
_LONGEST_REST = 32


class Lookup:
    """What followed the last tokens when they occurred before, most recently."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}
        """Run of tokens -> place of the token after its last occurrence, the present end left out."""
        for token in tokens:
            self.push(token)

    def push(self, token: int) -> None:
        """Add a token that was said."""
        for size in range(_SHORTEST, _LONGEST + 1):
            if len(self._tokens) >= size:
                self._next[tuple(self._tokens[-size:])] = len(self._tokens)
        self._tokens.append(token)

    def guess(self, most: int) -> list[int]:
        """Up to ``most`` tokens that may follow; none where nothing like the end was said before."""
        for size in range(_LONGEST, _SHORTEST - 1, -1):
            place = self._next.get(tuple(self._tokens[-size:]))
            if place is not None:
                return self._tokens[place : place + most]
        return []


class GuessingSteps:
    """Appends an answer's tokens to the cache with guesses behind them; stands for ``CellCache.step``."""

    def __init__(self, cells: CellCache, ticket: object, said: Sequence[int], most: int) -> None:
        """Start an answer.

        Args:
            cells: The cache, which can be cut back.
            ticket: From :meth:`edge_mllm.answer.decoding.cells.CellCache.begin`.
            said: Token ids of the prompt.
            most: Most tokens guessed at a time.
        """
        self._cells, self._ticket, self._most = cells, ticket, most
        self._lookup, self._length = Lookup(said), most
        self._open: deque[tuple[int, FloatArray]] = deque()
        """Guessed tokens that are in the cache and not yet chosen, each with the logits after it."""
        self._tried = self._in_a_row = 0
        """Tokens of the last guess, and how many of them were right."""
        self._rest = self._resting = 0
        """Tokens without guesses after a bad one, and those of them that are left."""
        self.guessed = self.right = 0
        """Tokens that were guessed, and those of them that were chosen."""

    def __call__(self, token: int) -> FloatArray:
        """Append a token that was chosen; return logits float32 [n_vocab]."""
        self._lookup.push(token)
        if self._open:
            guess, logits = self._open.popleft()
            if guess == token:
                self.right += 1
                self._in_a_row += 1
                return logits
            self._cells.drop(self._ticket, 1 + len(self._open))
            self._open.clear()
        return self._compute(token)

    def _compute(self, token: int) -> FloatArray:
        """Run the decoder over a token and what may follow it."""
        self._judge()
        if self._resting:
            self._resting -= 1
            return self._cells.step(self._ticket, token)
        guess = self._lookup.guess(min(self._length, self._cells.room - 1))
        if not guess:
            return self._cells.step(self._ticket, token)
        logits = self._cells.extend(self._ticket, [token, *guess])
        self.guessed += len(guess)
        self._tried, self._in_a_row = len(guess), 0
        self._open.extend(zip(guess, logits[1:], strict=True))
        first: FloatArray = logits[0]
        return first

    def _judge(self) -> None:
        """Longer guesses after a good one; after bad ones shorter and ever rarer, since a wrong guess costs time."""
        if not self._tried:
            return
        self._length = min(self._most, max(_SHORTEST, 2 * self._in_a_row))
        if 2 * self._in_a_row >= self._tried:
            self._rest = 0
        else:
            self._rest = min(_LONGEST_REST, max(1, 2 * self._rest))
        self._resting, self._tried = self._rest, 0
