"""The seam of an evaluation: whatever can answer a question about pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A generated answer with what it cost."""

    text: str
    timings: Mapping[str, float | None] = field(default_factory=dict)
    """Seconds and tokens per second, by the names of ``edge-mllm run --json``; None is no figure."""
    usage: Mapping[str, int | None] = field(default_factory=dict)
    """Token counts by the same names, as far as known; None where what they count is off."""


class Answerer(Protocol):
    """A model under test; decoding is greedy, so that the same question gets the same answer."""

    name: str
    """For people: bundle or checkpoint."""
    engine: str
    sha256: str
    """Names the weights; a run is only resumed with the same."""

    def answer(self, question: str, images: Sequence[Image], max_new_tokens: int) -> Reply:
        """Answer a prompt about RGB pictures."""
        ...

    def option_logprobs(self, question: str, images: Sequence[Image], options: Sequence[str]) -> list[float]:
        """Return the mean log-probability per token of each option as the whole answer."""
        ...
