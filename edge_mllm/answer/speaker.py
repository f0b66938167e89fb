"""From the first token's logits to the end of an answer: pieces of text, and the whole with what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from edge_mllm.answer.answer import Answer, FinishReason, Piece
from edge_mllm.answer.components import Components
from edge_mllm.answer.decoding.cells import CellCache
from edge_mllm.answer.decoding.generate import Ending, Step, decode
from edge_mllm.answer.decoding.logprobs import Logprobs
from edge_mllm.answer.decoding.prefill import Prefill
from edge_mllm.answer.decoding.prompt_lookup import GuessingSteps
from edge_mllm.answer.decoding.sampling import LogitsProcessor, Sampler
from edge_mllm.answer.pictures.picture import ConversationPicture, reduction_usage
from edge_mllm.answer.rates import MeasuredRates
from edge_mllm.answer.request import Request
from edge_mllm.answer.timings import Stopwatch, Usage
from edge_mllm.arrays import FloatArray
from edge_mllm.errors import SettingError
from edge_mllm.machine.memory import AnonymousPeak, large_page_bytes, peak_rss_bytes
from edge_mllm.prompt.build import PromptIds


@dataclass(frozen=True)
class Job:
    """An answer in the making."""

    prompt: PromptIds
    pictures: Sequence[ConversationPicture]
    request: Request
    watch: Stopwatch
    keep_any: bool
    processors: tuple[LogitsProcessor, ...]


class Speaker:
    """Decodes answers.

    Args:
        parts: Of the model.
        cells: The cache that a prompt was computed into.
        rates: Learn from every answer.
        anonymous: Told when much memory is taken.
    """

    def __init__(self, parts: Components, cells: CellCache, rates: MeasuredRates, anonymous: AnonymousPeak) -> None:
        self._parts, self._cells, self._rates, self._anonymous = parts, cells, rates, anonymous
        self._reader, self._decoder = parts.reader, parts.decoder
        self.tells_large_pages = False
        """Whether answers say how much memory is in large pages."""

    def pieces(self, job: Job, begun: Prefill, logits: FloatArray) -> Iterator[Piece]:
        """Decode an answer.

        Args:
            job: What is asked.
            begun: Its prompt, computed.
            logits: Of the first token, float32 [n_vocab].

        Raises:
            EngineError: The decoder failed, or another answer was begun meanwhile.
            SettingError: Prompt lookup is asked of a decoder whose state cannot be cut back.
        """
        request = job.request
        ending = Ending(
            max_new_tokens=min(request.max_new_tokens, self._decoder.n_ctx - len(job.prompt.ids)),
            token_ids=frozenset() if request.ignore_eos else frozenset(self._reader.stop_token_ids),
            strings=request.stop,
        )
        said = job.prompt.ids[job.prompt.ids >= 0].tolist()
        sampler = Sampler(request.sampling, prompt=said, processors=job.processors)
        steps: list[Step] = []
        logprobs = None if request.logprobs is None else Logprobs(request.logprobs, self._reader.token_bytes)
        append: Callable[[int], FloatArray] = partial(self._cells.step, begun.ticket)
        guesses = None
        if request.prompt_lookup:
            append = guesses = self._guesses(begun.ticket, said, request.prompt_lookup)
        for step in decode(logits, append, sampler, self._reader.tokenizer, ending, logprobs):
            job.watch.token()
            steps.append(step)
            finish = step.finish_reason
            yield Piece(
                text=step.text,
                token=step.token,
                timings=job.watch.timings(),
                finish_reason=finish,
                logprobs=step.logprobs,
                answer=None if finish is None else self._answer(job, steps, finish, begun.kept, guesses),
            )

    def _guesses(self, ticket: object, said: Sequence[int], most: int) -> GuessingSteps:
        """Steps that compute guessed tokens along.

        Raises:
            SettingError: The decoder's state cannot be cut back, so a wrong guess could not be undone.
        """
        if not self._decoder.can_cut:
            raise SettingError("prompt lookup is not for this model: its recurrent state cannot be cut back")
        return GuessingSteps(self._cells, ticket, said, most)

    def _answer(
        self, job: Job, steps: Sequence[Step], finish: FinishReason, kept: int, guesses: GuessingSteps | None
    ) -> Answer:
        usage = Usage(
            prompt_tokens=len(job.prompt.ids),
            image_tokens=job.prompt.image_tokens,
            completion_tokens=len(steps),
            reused_tokens=kept,
            guessed_tokens=guesses.guessed if guesses else None,
            right_tokens=guesses.right if guesses else None,
        )
        self._anonymous.note()
        told = None if job.request.logprobs is None else tuple(step.logprobs for step in steps if step.logprobs)
        answer = Answer(
            text="".join(step.text for step in steps),
            finish_reason=finish,
            usage=usage,
            images=tuple(picture.usage for picture in job.pictures),
            timings=job.watch.timings(),
            peak_rss_bytes=peak_rss_bytes(),
            peak_anonymous_bytes=self._anonymous.bytes,
            large_page_bytes=large_page_bytes() if self.tells_large_pages else None,
            model=self._reader.name,
            engine=self._parts.engine,
            reduction=reduction_usage(job.pictures, job.watch.reduction_s),
            devices=self._parts.devices,
            logprobs=told,
        )
        self._rates.learn(answer)
        return answer
