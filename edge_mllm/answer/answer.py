"""What a caller gets back: pieces while an answer is made, and the whole answer with what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from edge_mllm.answer.decoding.logprobs import StepLogprobs
from edge_mllm.answer.timings import ImageUsage, ReductionUsage, Timings, Usage
from edge_mllm.bundle.spec import Engine
from edge_mllm.errors import EngineError

FinishReason = Literal["stop", "length"]
"""``stop``: the model ended its turn or a stop string was met; ``length``: the token limit or the context's end."""


@dataclass(frozen=True, kw_only=True)
class StageDevice:
    """What runs a stage."""

    provider: str
    """As ``--provider`` names it."""
    device: str
    """As ``CPU`` or ``SM8650 v75``."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One finished answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    images: tuple[ImageUsage, ...]
    """The pictures of this request, in order."""
    timings: Timings
    peak_rss_bytes: int | None
    """Peak resident memory of the process so far; None where the system does not tell."""
    peak_anonymous_bytes: int | None
    """The part of it that belongs to no file, see :class:`edge_mllm.machine.memory.AnonymousPeak`. Mapped weights,
    which the system may drop and read again, are the rest."""
    model: str
    engine: Engine
    large_page_bytes: int | None = None
    """Anonymous memory in large pages at the answer's end; None where they were not asked for or the system does not
    tell."""
    reduction: ReductionUsage | None = None
    """What was asked of the pictures' visual tokens and what it gave; None where nothing was asked."""
    devices: dict[str, StageDevice] = field(default_factory=dict)
    """Stage -> what runs it: ``vision``, ``prefill`` and ``decode``."""
    logprobs: tuple[StepLogprobs, ...] | None = None
    """How likely each token was, that which ended the answer included; None where it was not asked for."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that ``run --json`` prints; its keys are part of the interface."""
        document = asdict(replace(self, logprobs=None))
        document["logprobs"] = None if self.logprobs is None else [_likely(each) for each in self.logprobs]
        unused = ("guessed_tokens", "right_tokens") if self.usage.guessed_tokens is None else ()
        for name in ("reused_tokens", *unused):
            del document["usage"][name]
        document["images"] = list(document["images"])
        for name in ("reduction", "large_page_bytes", "logprobs"):
            if document[name] is None:
                del document[name]
        return document


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A bit of an answer that is being made."""

    text: str
    """New text; empty while a character or a stop string is incomplete."""
    token: int
    """The token that brought it."""
    timings: Timings
    """Up to now."""
    finish_reason: FinishReason | None = None
    logprobs: StepLogprobs | None = None
    """How likely the token was, where that was asked for."""
    answer: Answer | None = None
    """The whole answer, on the last piece."""


def _likely(step: StepLogprobs) -> dict[str, Any]:
    """One token as a JSON object, with the most likely ones where there are some."""
    told = [
        {"token": each.token, "text": each.text, "bytes": list(each.data), "logprob": each.logprob}
        for each in (step.chosen, *step.top)
    ]
    return told[0] | {"top": told[1:]}


def last_answer(pieces: Iterator[Piece]) -> Answer:
    """Run an answer to its end."""
    for piece in pieces:
        if piece.answer is not None:
            return piece.answer
    raise EngineError("the answer ended without its last piece")
