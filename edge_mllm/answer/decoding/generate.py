"""The decoding loop: logits to tokens to text, until something ends the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge_mllm.answer.answer import FinishReason
from edge_mllm.answer.decoding.logprobs import Logprobs, StepLogprobs
from edge_mllm.answer.decoding.sampling import Sampler
from edge_mllm.arrays import FloatArray
from edge_mllm.prompt.stream_text import StopStrings, TextStream, TokenDecoder


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What ends an answer."""

    max_new_tokens: int
    token_ids: frozenset[int]
    """Tokens that end the model's turn."""
    strings: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""


@dataclass(frozen=True)
class Step:
    """One token and the text that became certain with it."""

    token: int
    text: str
    finish_reason: FinishReason | None
    logprobs: StepLogprobs | None = None
    """Where they were asked for."""


def decode(
    logits: FloatArray,
    append: Callable[[int], FloatArray],
    sampler: Sampler,
    tokenizer: TokenDecoder,
    ending: Ending,
    logprobs: Logprobs | None = None,
) -> Iterator[Step]:
    """Generate tokens.

    Args:
        logits: float32 [n_vocab] after the prompt.
        append: Puts a token into the decoder's cache and gives the next logits.
        sampler: Chooses tokens.
        tokenizer: Turns them into text.
        ending: When to stop.
        logprobs: Works out how likely each token was; None where nobody asked.

    Yields:
        One step a token, the last one with a finish reason. The token that ended the answer is not appended.
    """
    stream, stops = TextStream(tokenizer), StopStrings(ending.strings)
    for count in range(1, ending.max_new_tokens + 1):
        token = sampler(logits)
        finish: FinishReason | None = None
        if token in ending.token_ids:
            text, hit = stops.push(stream.flush())
            finish = "stop"
        else:
            text, hit = stops.push(stream.push(token))
            finish = "stop" if hit else None
        if finish is None and count == ending.max_new_tokens:
            rest, hit = stops.push(stream.flush())
            text, finish = text + rest, "stop" if hit else "length"
        if finish is not None and not hit:
            text += stops.flush()
        yield Step(token, text, finish, None if logprobs is None else logprobs(logits, token))
        if finish is not None:
            return
        logits = append(token)
