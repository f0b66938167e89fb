"""What an answer cost: frozen records that every result carries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from edge_mllm.answer.budget import Reduction

Stage = Literal["load", "picture", "preprocess", "vision", "reduction", "prefill", "grammar", "probe", "options"]
"""Parts of an answer whose time is taken."""
EmbeddingSource = Literal["tower", "prepared", "memory", "disk", "kv"]
"""Where a picture's embeddings came from: computed now, computed in the background before they were needed, found in
the cache in memory or on disk, or not needed because the decoder still had the picture's keys and values."""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Wall-clock seconds of one answer's stages, and tokens per second."""

    load_s: float = 0.0
    """Opening the bundle and the decoder, plus the tower where this answer was the first to need it, and measuring
    which library runs it where that was not known yet."""
    preprocess_s: float = 0.0
    """Reading, resizing and tiling the pictures."""
    vision_s: float = 0.0
    """The tower; where it works beside the processor, on an NPU, what the answer waited for it."""
    prefill_s: float = 0.0
    """The decoder over the prompt."""
    ttft_s: float = 0.0
    """From the call to the first token, everything included except loading."""
    decode_s: float = 0.0
    """From the first token to the last."""
    prefill_tps: float = 0.0
    """Prompt tokens that were computed (not reused) per second of prefill."""
    decode_tps: float = 0.0
    """Tokens after the first per second of decoding; 0 for a single token."""
    grammar_s: float = 0.0
    """Masking tokens that a JSON schema forbids, for all tokens of the answer; part of ttft_s and decode_s."""
    probe_s: float = 0.0
    """Measuring one tile and a short prefill, because ``max_ttft`` was given and no speed was known; part of ttft_s."""
    picture_s: float = 0.0
    """Reading the pictures' files and deciding how to cut them; part of preprocess_s."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts of one answer."""

    prompt_tokens: int
    """All tokens of the prompt, visual ones included."""
    image_tokens: int
    """Visual tokens of the prompt."""
    completion_tokens: int
    """Tokens generated, the stop token included."""
    reused_tokens: int = 0
    """Prompt tokens whose keys and values were still in the cache."""
    guessed_tokens: int | None = None
    """Answer tokens guessed by prompt lookup; None where it is off."""
    right_tokens: int | None = None
    """Those of them that the model chose."""


@dataclass(frozen=True, kw_only=True)
class ImageUsage:
    """What one picture became."""

    width: int
    height: int
    tiles: int
    tokens: int
    reduced: bool = False
    """Tiled more coarsely than the model does by itself, because a budget or low detail asked for it."""
    source: EmbeddingSource = "tower"
    reduced_by: Reduction | None = None
    """The setting that asked for it."""
    tiles_reused: int = 0
    """Tiles that were not run through the tower because the same pixels had been, in this picture or another; counted
    where the picture as a whole was new (``source`` is ``tower``)."""


@dataclass(frozen=True, kw_only=True)
class ReductionUsage:
    """What a reduction of visual tokens did to the pictures of a prompt."""

    asked: str
    """As it was asked for."""
    tokens_before: int
    tokens_after: int
    seconds: float | None = None
    """Choosing tokens and making what the decoder gets, part of ``ttft_s``; None before it was done."""


def per_second(count: int, seconds: float) -> float:
    """Count per second; 0.0 where nothing was counted or no time passed."""
    return count / seconds if count > 0 and seconds > 0 else 0.0


class Stopwatch:
    """Collects the seconds of an answer's stages while it is made."""

    def __init__(self, load_s: float = 0.0) -> None:
        """Start; ``load_s`` is what loading took before this answer."""
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = dict.fromkeys(get_args(Stage), 0.0)
        self._load_before = load_s
        self._inner = 0.0
        """Seconds of stages that ended inside the one that runs."""
        self._first_token: float | None = None
        self._last_token = 0.0
        self._tokens = 0
        self.prefilled = 0
        """Prompt tokens that were computed."""

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Add the time of a block to a stage; a stage inside it is not counted twice."""
        start, outer, self._inner = time.perf_counter(), self._inner, 0.0
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self._seconds[name] += seconds - self._inner
            self._inner = outer + seconds

    def earlier(self, name: Stage, seconds: float) -> None:
        """Count seconds of a stage that passed before this watch was started."""
        self._seconds[name] += seconds
        self._start -= seconds

    def move(self, name: Stage, to: Stage, seconds: float) -> None:
        """Count seconds of one stage as another's, as many as it has."""
        moved = min(seconds, self._seconds[name])
        self._seconds[name] -= moved
        self._seconds[to] += moved

    @property
    def load_s(self) -> float:
        """What was loaded for this answer."""
        return self._seconds["load"]

    @property
    def spent_s(self) -> float:
        """Seconds since the answer was asked for, without loading."""
        return time.perf_counter() - self._start - self._seconds["load"]

    @property
    def reduction_s(self) -> float:
        """Deciding which visual tokens stay, and making what stays of them."""
        return self._seconds["reduction"]

    @property
    def options_s(self) -> float:
        """Computing what follows the first token of options."""
        return self._seconds["options"]

    def token(self) -> None:
        """Note that a token was chosen."""
        self._last_token = time.perf_counter()
        self._tokens += 1
        if self._first_token is None:
            self._first_token = self._last_token

    def timings(self) -> Timings:
        """The timings up to the last token."""
        seconds = self._seconds
        first = self._first_token if self._first_token is not None else self._start
        decode = self._last_token - first if self._tokens else 0.0
        return Timings(
            load_s=self._load_before + seconds["load"],
            preprocess_s=seconds["picture"] + seconds["preprocess"],
            vision_s=seconds["vision"],
            prefill_s=seconds["prefill"],
            ttft_s=first - self._start - seconds["load"] if self._tokens else 0.0,
            decode_s=decode,
            prefill_tps=per_second(self.prefilled, seconds["prefill"]),
            decode_tps=per_second(self._tokens - 1, decode),
            grammar_s=seconds["grammar"],
            probe_s=seconds["probe"],
            picture_s=seconds["picture"],
        )
