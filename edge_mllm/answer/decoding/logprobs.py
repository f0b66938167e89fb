"""How likely the model found what it said: log probabilities of the model itself, before penalties, masks and draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray

WideArray = npt.NDArray[np.float64]


def widened(logits: FloatArray) -> tuple[WideArray, WideArray]:
    """Logits float32 [..., n_vocab] in float64, and what less they are natural log-probabilities: float64 [..., 1]."""
    values: WideArray = logits.astype(np.float64)
    top = values.max(axis=-1, keepdims=True)
    return values, top + np.log(np.exp(values - top).sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class TokenLogprob:
    """One token, and how likely it was."""

    token: int
    data: bytes
    """Its bytes, which need not be whole characters; none where it is no text."""
    logprob: float
    """Natural logarithm of its probability."""

    @property
    def text(self) -> str:
        """Its bytes as text; what is no whole character reads as U+FFFD."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True)
class StepLogprobs:
    """The token that was chosen, and those that were most likely."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]
    """As many as were asked for, most likely first."""


class Logprobs:
    """Works out the log probabilities of an answer's tokens.

    Args:
        most: How many of the most likely tokens are told.
        spell: Bytes of a token.
    """

    def __init__(self, most: int, spell: Callable[[int], bytes]) -> None:
        self._most, self._spell = most, spell

    def __call__(self, logits: FloatArray, token: int) -> StepLogprobs:
        """Of one step, from logits float32 [n_vocab]; log-softmax in float64."""
        values, total = widened(logits)
        values -= total
        return StepLogprobs(self._told(token, values), tuple(self._told(each, values) for each in self._best(values)))

    def _best(self, values: WideArray) -> Sequence[int]:
        count = min(self._most, len(values))
        if not count:
            return ()
        best = np.argpartition(values, -count)[-count:]
        ordered: list[int] = best[np.lexsort((best, -values[best]))].tolist()
        return ordered

    def _told(self, token: int, values: WideArray) -> TokenLogprob:
        return TokenLogprob(int(token), self._spell(int(token)), float(values[token]))
