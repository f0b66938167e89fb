"""What a model says without seeing anything, remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict

from edge_mllm.answer.decoding.options import OptionLogprobs

_MOST_REMEMBERED = 1024
Asked = tuple[bytes, tuple[tuple[int, int], ...], tuple[bytes, ...], str]
"""A question without its pictures' contents: prompt, sizes, options, budget."""


class EmptyAnswers:
    """What a model says of empty pictures, remembered: questions repeat from picture to picture."""

    def __init__(self) -> None:
        self._known: OrderedDict[Asked, tuple[OptionLogprobs, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Asked) -> tuple[OptionLogprobs, ...] | None:
        """Log-probabilities of each option's tokens, where they are known."""
        with self._lock:
            return self._known.get(key)

    def put(self, key: Asked, logprobs: tuple[OptionLogprobs, ...]) -> None:
        """Remember them, and forget the oldest where there are too many."""
        with self._lock:
            self._known[key] = logprobs
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
