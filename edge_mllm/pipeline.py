"""From a prompt and pictures to pieces of an answer: the stages in order, over one tower and one decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from edge_mllm.answer import Answer, FinishReason, Piece
from edge_mllm.answer_plan import AnswerPlan
from edge_mllm.cells import CellCache, Key, picture_ends, prompt_keys
from edge_mllm.chat_template import Message
from edge_mllm.components import Components
from edge_mllm.conversation_picture import ConversationPicture, reduction_usage, seen_together
from edge_mllm.decoders.lazy import LazyDecoder
from edge_mllm.decoders.protocol import DecoderState, FloatArray
from edge_mllm.errors import ContextOverflowError, SettingError
from edge_mllm.generate import Ending, decode
from edge_mllm.image import Picture
from edge_mllm.limits import Limit, LimitError
from edge_mllm.memory import AnonymousPeak, large_page_bytes, peak_rss_bytes
from edge_mllm.planner import Planner
from edge_mllm.prompt import PromptIds
from edge_mllm.prompt_lookup import GuessingSteps
from edge_mllm.reduction.settling import Settler
from edge_mllm.request import Request, last_question
from edge_mllm.sampling import LogitsProcessor, Sampler
from edge_mllm.splice import splice
from edge_mllm.timings import Stopwatch, Usage


@dataclass(frozen=True)
class Conversation:
    """Messages with an item for each picture, and the pictures in the order of those items."""

    messages: Sequence[Message]
    pictures: Sequence[ConversationPicture]


@dataclass(frozen=True)
class _Job:
    """An answer in the making."""

    prompt: PromptIds
    pictures: Sequence[ConversationPicture]
    request: Request
    watch: Stopwatch
    keep_any: bool
    processors: tuple[LogitsProcessor, ...]


class Pipeline:
    """Joins the stages; knows what lies in the decoder's cache."""

    def __init__(self, parts: Components) -> None:
        self._reader, self._engine = parts.reader, parts.engine
        self._encoder, self._decoder = parts.encoder, parts.decoder
        self._cells = CellCache(parts.decoder)
        self._settler = Settler(parts.encoder, parts.decoder, self._open_decoder)
        self._planner = Planner(parts)
        self._anonymous = AnonymousPeak()
        self.tells_large_pages = False
        """Whether answers say how much memory is in large pages."""

    def prompt(self, conversation: Conversation) -> PromptIds:
        """Render and tokenise a conversation.

        Raises:
            PromptError: The model's template refuses the messages.
        """
        return self._reader.prompt(conversation.messages, conversation.pictures)

    def plan(self, conversation: Conversation, max_new_tokens: int, *, keep_any: bool = False) -> AnswerPlan:
        """What an answer will take; nothing is encoded. Arguments as :meth:`respond`.

        Raises:
            PromptError: The model's template refuses the messages.
        """
        self._note_question(conversation)
        prompt = self._settler.expected(self.prompt(conversation), conversation.pictures)
        keys = prompt_keys(prompt, [picture.key for picture in conversation.pictures])
        kept = self._cells.kept(keys, None if keep_any else picture_ends(prompt))
        return self._planner.plan(prompt, conversation.pictures, max_new_tokens, kept)

    def pictures(
        self, images: Sequence[Picture], earlier: Conversation, request: Request, watch: Stopwatch, *, keep_any: bool
    ) -> Sequence[ConversationPicture]:
        """Decode a request's pictures and tile them as finely as its budget and its limits allow.

        Args:
            images: In any form.
            earlier: All messages, the new one with places for ``images`` among them, and the pictures before these.
            request: With the limits.
            watch: Running since the answer was asked for.
            keep_any: As :meth:`respond`.

        Raises:
            ImageError: A picture cannot be used.
            PromptError: The budget on visual tokens cannot be kept.
            SettingError: A limit cannot be held with this model.
        """

        def broken(pictures: Sequence[ConversationPicture]) -> Limit | None:
            asked = Conversation(earlier.messages, seen_together([*earlier.pictures, *pictures]))
            return self._check(asked, request, watch, keep_any=keep_any)[0]

        with watch.stage("preprocess"):
            return self._reader.pictures(images, request.budget, broken if request.limits.given else None)

    def _check(
        self, conversation: Conversation, request: Request, watch: Stopwatch, *, keep_any: bool
    ) -> tuple[Limit | None, AnswerPlan]:
        """The limit that an answer would break, and its plan. Where speeds are needed and unknown they are measured."""
        limits, tokens = request.limits, request.max_new_tokens
        plan = self.plan(conversation, tokens, keep_any=keep_any)
        limit = limits.broken(plan, watch.spent_s)
        if limit is None and limits.max_ttft_s is not None and plan.ttft_s is None:
            self._planner.measure(watch, pictures=plan.vision_s is None)
            plan = self.plan(conversation, tokens, keep_any=keep_any)
            limit = limits.broken(plan, watch.spent_s)
        return limit, plan

    def respond(
        self, conversation: Conversation, request: Request, watch: Stopwatch, *, keep_any: bool = False
    ) -> Iterator[Piece]:
        """Answer a conversation piece by piece.

        Everything that can be refused is refused in this call, before the first piece is asked for.

        Args:
            conversation: What was said.
            request: How to answer.
            watch: Running since the answer was asked for.
            keep_any: Keep the longest common beginning of the last prompt in the cache, wherever it ends, instead of
                up to a picture's end only (then answers do not depend on what was asked before).

        Raises:
            ContextOverflowError: The prompt does not fit.
            PromptError: The model's template refuses the messages.
            LimitError: It would break one of the request's limits.
            SchemaError: The answer cannot be held to the request's JSON schema.
        """
        self._note_question(conversation)
        prompt = self.prompt(conversation)
        expected = self._settler.expected(prompt, conversation.pictures)
        needed = len(expected.ids) + 1
        if needed > self._decoder.n_ctx:
            raise ContextOverflowError(needed, self._decoder.n_ctx, expected.image_tokens)
        if request.limits.given:
            limit, plan = self._check(conversation, request, watch, keep_any=keep_any)
            if limit is not None:
                raise LimitError(limit, plan, request.limits, watch.spent_s)
        processors = request.processors
        if request.json_schema is not None:
            processors = (self._reader.grammar(request.json_schema, watch), *processors)
        return self._pieces(_Job(prompt, conversation.pictures, request, watch, keep_any, processors))

    def saved(self, conversation: Conversation) -> tuple[Sequence[Key], DecoderState]:
        """What of a conversation is in the cache, cell by cell, and a copy of it. Other cells are dropped."""
        pictures = conversation.pictures
        prompt = self._settler.settle(self.prompt(conversation), pictures, Stopwatch())
        keys = prompt_keys(prompt, [picture.key for picture in pictures])
        self._cells.begin(keys, None)
        return self._cells.keys, self._decoder.state()

    def adopt(self, keys: Sequence[Key], state: DecoderState) -> None:
        """Replace the cache's contents by what :meth:`saved` gave.

        Raises:
            EngineError: The decoder does not take it; the cache is empty then.
        """
        self._cells.adopt(keys, state)

    def decoder_rows(self, picture: ConversationPicture) -> FloatArray:
        """What the decoder gets of one picture: float32 [prompt_tokens, n_embd]. Its question must be noted."""
        watch = Stopwatch()
        self._settler.decide([picture], watch)
        return picture.decoder_rows(self._encoder, watch)

    def _note_question(self, conversation: Conversation) -> None:
        """The latest question is what new pictures' tokens are chosen for. Later questions find the same tokens."""
        new = [each for each in conversation.pictures if each.thinned and each.query is None]
        if any(picture.thinned.needs_query for picture in new if picture.thinned):
            ids = tuple(self._reader.text_ids(last_question(conversation.messages)).tolist())
            for picture in new:
                picture.query = ids

    def _pieces(self, job: _Job) -> Iterator[Piece]:
        job = replace(job, prompt=self._settler.settle(job.prompt, job.pictures, job.watch))
        ticket, kept, logits = self._prefill(job)
        request = job.request
        ending = Ending(
            max_new_tokens=min(request.max_new_tokens, self._decoder.n_ctx - len(job.prompt.ids)),
            token_ids=frozenset() if request.ignore_eos else frozenset(self._reader.stop_token_ids),
            strings=request.stop,
        )
        said = job.prompt.ids[job.prompt.ids >= 0].tolist()
        sampler = Sampler(request.sampling, prompt=said, processors=job.processors)
        texts: list[str] = []
        append: Callable[[int], FloatArray] = partial(self._cells.step, ticket)
        guesses = None
        if request.prompt_lookup:
            append = guesses = self._guesses(ticket, said, request.prompt_lookup)
        for step in decode(logits, append, sampler, self._reader.tokenizer, ending):
            job.watch.token()
            texts.append(step.text)
            finish = step.finish_reason
            yield Piece(
                text=step.text,
                token=step.token,
                timings=job.watch.timings(),
                finish_reason=finish,
                answer=None if finish is None else self._answer(job, texts, finish, kept, guesses),
            )

    def _guesses(self, ticket: object, said: Sequence[int], most: int) -> GuessingSteps:
        """Steps that compute guessed tokens along.

        Raises:
            SettingError: The decoder's state cannot be cut back, so a wrong guess could not be undone.
        """
        if not self._decoder.can_cut:
            raise SettingError("prompt lookup is not for this model: its recurrent state cannot be cut back")
        return GuessingSteps(self._cells, ticket, said, most)

    def _prefill(self, job: _Job) -> tuple[object, int, FloatArray]:
        """Encode what is needed and fill the cache; return the cache's ticket, the cells kept, and the logits."""
        keys = prompt_keys(job.prompt, [picture.key for picture in job.pictures])
        borders = picture_ends(job.prompt)
        ticket, kept = self._cells.begin(keys, None if job.keep_any else borders)
        n_embd = self._decoder.n_embd
        embeddings = [
            picture.decoder_rows(self._encoder, job.watch)
            if end > kept
            else picture.no_embeddings(n_embd)  # its cells are kept
            for picture, end in zip(job.pictures, borders, strict=True)
        ]
        grids, places = [each.token_grid for each in job.pictures], [each.kept for each in job.pictures]
        segments = splice(job.prompt, embeddings, n_embd, grids, places)
        self._anonymous.note()
        self._encoder.release()
        job.watch.prefilled = len(keys) - kept
        with job.watch.stage("load"):
            self._decoder.warm(job.watch.prefilled)
        with job.watch.stage("prefill"):
            self._decoder.reserve(len(keys) + job.request.max_new_tokens)
            logits = self._cells.prefill(ticket, keys, segments, borders)
        self._anonymous.note()
        return ticket, kept, logits

    def _open_decoder(self, watch: Stopwatch) -> None:
        if isinstance(self._decoder, LazyDecoder):
            with watch.stage("load"):
                self._decoder.open()

    def _answer(
        self, job: _Job, texts: Sequence[str], finish: FinishReason, kept: int, guesses: GuessingSteps | None
    ) -> Answer:
        usage = Usage(
            prompt_tokens=len(job.prompt.ids),
            image_tokens=job.prompt.image_tokens,
            completion_tokens=len(texts),
            reused_tokens=kept,
            guessed_tokens=guesses.guessed if guesses else None,
            right_tokens=guesses.right if guesses else None,
        )
        self._anonymous.note()
        answer = Answer(
            text="".join(texts),
            finish_reason=finish,
            usage=usage,
            images=tuple(picture.usage for picture in job.pictures),
            timings=job.watch.timings(),
            peak_rss_bytes=peak_rss_bytes(),
            peak_anonymous_bytes=self._anonymous.bytes,
            large_page_bytes=large_page_bytes() if self.tells_large_pages else None,
            model=self._reader.name,
            engine=self._engine,
            reduction=reduction_usage(job.pictures, job.watch.reduction_s),
        )
        self._planner.rates.learn(answer)
        return answer
