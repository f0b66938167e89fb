"""What OpenAI's API calls frequency penalty, presence penalty and logit bias; its reference gives the formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm.errors import SettingError


class CountPenalties:
    """Makes tokens of the answer less likely, see :class:`edge_mllm.answer.decoding.sampling.LogitsProcessor`.

    Args:
        frequency: Taken from a token's logit for every time that the answer has it.
        presence: Taken once.
    """

    def __init__(self, frequency: float, presence: float) -> None:
        self._frequency, self._presence = frequency, presence

    def __call__(self, logits: FloatArray, generated: Sequence[int]) -> FloatArray:
        """Logits float32 [n_vocab] with the penalties taken."""
        if not generated:
            return logits
        tokens, counts = np.unique(np.array(generated, np.int64), return_counts=True)
        changed = logits.copy()
        changed[tokens] -= (self._frequency * counts + self._presence).astype(np.float32)
        return changed


class LogitBias:
    """Adds to the logits of given tokens.

    Args:
        bias: Token id -> what is added.
        n_vocab: Tokens of the model.

    Raises:
        SettingError: There is no such token.
    """

    def __init__(self, bias: Mapping[int, float], n_vocab: int) -> None:
        wrong = [token for token in bias if not 0 <= token < n_vocab]
        if wrong:
            raise SettingError(f"logit_bias is for tokens 0 to {n_vocab - 1}; there is no token {wrong[0]}")
        self._tokens = np.fromiter(bias, np.int64, len(bias))
        self._added = np.fromiter(bias.values(), np.float32, len(bias))

    def __call__(self, logits: FloatArray, generated: Sequence[int]) -> FloatArray:  # noqa: ARG002  (as every processor)
        """Logits float32 [n_vocab] with the bias added."""
        changed = logits.copy()
        changed[self._tokens] += self._added
        return changed
