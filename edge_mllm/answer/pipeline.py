"""From a prompt and pictures to pieces of an answer: the stages in order, over one tower and one decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from edge_mllm.answer.answer import Piece
from edge_mllm.answer.answer_plan import AnswerPlan
from edge_mllm.answer.components import Components
from edge_mllm.answer.conversation import Conversation
from edge_mllm.answer.decoding.cells import CellCache
from edge_mllm.answer.decoding.keys import Key, prompt_keys
from edge_mllm.answer.decoding.options import ScoredOptions, score_options
from edge_mllm.answer.decoding.prefill import Prefill
from edge_mllm.answer.limit_check import LimitCheck
from edge_mllm.answer.limits import Limit, LimitError
from edge_mllm.answer.messages import last_question
from edge_mllm.answer.pictures.filling import Filling
from edge_mllm.answer.pictures.picture import ConversationPicture, seen_together
from edge_mllm.answer.pictures.settling import Settler
from edge_mllm.answer.planner import Planner
from edge_mllm.answer.request import Request
from edge_mllm.answer.speaker import Job, Speaker
from edge_mllm.answer.timings import Stopwatch
from edge_mllm.answer.turns import Turns, WhenBusy
from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.decoders.protocol import DecoderState
from edge_mllm.errors import ContextOverflowError
from edge_mllm.machine.memory import AnonymousPeak
from edge_mllm.picture.image import Picture
from edge_mllm.prompt.build import PromptIds


@dataclass(frozen=True)
class Weighed:
    """Options that were weighed after a prompt."""

    scores: ScoredOptions
    prompt_tokens: int
    image_tokens: int
    reused_tokens: int
    """Prompt tokens whose keys and values were still in the cache."""


class Pipeline:
    """Joins the stages; knows what lies in the decoder's cache."""

    def __init__(self, parts: Components, when_busy: WhenBusy = "wait", *, load_s: float = 0.0) -> None:
        self.parts, self._load_s = parts, load_s
        self.turns = Turns(when_busy)
        self._reader, self._engine = parts.reader, parts.engine
        self._encoder, self._decoder = parts.encoder, parts.decoder
        self._cells = CellCache(parts.decoder)
        self._settler = Settler(parts.encoder, parts.decoder)
        self._planner = Planner(parts)
        self._anonymous = AnonymousPeak()
        self._filling = Filling(parts.encoder, parts.decoder, self._anonymous)
        self._speaker = Speaker(parts, self._cells, self._planner.rates, self._anonymous)

    def tell_large_pages(self, tells: bool) -> None:
        """Whether answers say how much memory is in large pages (not unless asked for)."""
        self._speaker.tells_large_pages = tells

    def start_watch(self) -> Stopwatch:
        """A stopwatch for an answer that begins now and knows what loading took."""
        return Stopwatch(self._load_s)

    def prompt(self, conversation: Conversation) -> PromptIds:
        """Render and tokenise a conversation.

        Raises:
            PromptError: The model's template refuses the messages.
        """
        return self._reader.prompt(conversation.messages, conversation.pictures)

    def plan(self, images: Sequence[Picture], earlier: Conversation, request: Request) -> AnswerPlan:
        """What :meth:`ask` with the same arguments will take. Nothing is encoded, and no limit is an error.

        Raises:
            ImageError: A picture cannot be used.
            PromptError: The budget on visual tokens cannot be kept, or the model's template refuses the messages.
            SettingError: A limit cannot be held with this model.
        """
        return self.planned(images, earlier, request)[1]

    def planned(
        self, images: Sequence[Picture], earlier: Conversation, request: Request
    ) -> tuple[Conversation, AnswerPlan]:
        """The same, with the conversation whose pictures are tiled but not decoded."""
        with self.turns.turn():
            new = self._pictures(images, earlier, request, self.start_watch(), keep_any=False, decode=False)
            conversation = Conversation(earlier.messages, new)
            return conversation, self._plan(conversation, request.max_new_tokens, keep_any=False)

    def _plan(self, conversation: Conversation, max_new_tokens: int, *, keep_any: bool) -> AnswerPlan:
        self._note_question(conversation)
        prompt = self._settler.expected(self.prompt(conversation), conversation.pictures)
        keys = prompt_keys(prompt, [picture.key for picture in conversation.pictures])
        kept = self._cells.kept(keys, None if keep_any else self._cells.borders(prompt, self._reader.stop_token_ids))
        return self._planner.plan(prompt, conversation.pictures, max_new_tokens, kept)

    def _pictures(
        self,
        images: Sequence[Picture],
        earlier: Conversation,
        request: Request,
        watch: Stopwatch,
        *,
        keep_any: bool,
        decode: bool = True,
    ) -> Sequence[ConversationPicture]:
        """New pictures, tiled as finely as their budget and the limits allow; without ``decode`` planned only."""
        broken = LimitCheck(partial(self._check, request=request, watch=watch, keep_any=keep_any), earlier, request)
        with watch.stage("picture"):
            check = broken if request.limits.given else None
            return self._reader.pictures(images, request.budget, check, decode=decode)

    def _check(
        self, conversation: Conversation, request: Request, watch: Stopwatch, *, keep_any: bool
    ) -> tuple[Limit | None, AnswerPlan]:
        """The limit that an answer would break, and its plan. Where speeds are needed and unknown they are measured."""
        limits, tokens = request.limits, request.max_new_tokens
        plan = self._plan(conversation, tokens, keep_any=keep_any)
        limit = limits.broken(plan, watch.spent_s)
        if limit is None and limits.max_ttft_s is not None and plan.ttft_s is None:
            self._planner.measure(watch, pictures=plan.vision_s is None)
            plan = self._plan(conversation, tokens, keep_any=keep_any)
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
            BusyError: This thread has a stream open, or another one and the model does not wait.
        """
        with self.turns.turn():
            return self._pieces(self._job(conversation, request, watch, keep_any=keep_any))

    def ask(
        self, images: Sequence[Picture], earlier: Conversation, request: Request, watch: Stopwatch, *, keep_any: bool
    ) -> tuple[Conversation, Iterator[Piece]]:
        """Decode new pictures, tile them as finely as budget and limits allow, and answer.

        Args:
            images: In any form.
            earlier: All messages, the new one with places for ``images`` among them, and the pictures before these.
            request: How to answer.
            watch: Running since the answer was asked for.
            keep_any: As :meth:`respond`.

        Raises:
            ImageError: A picture cannot be used.
            LimitError: The pictures alone would break ``max_memory``; they are not decoded then.
            SettingError: A limit cannot be held with this model.
            EdgeMLLMError: As :meth:`respond`.

        Returns:
            The whole conversation, and the pieces of the answer.
        """
        with self.turns.turn():
            new = self._pictures(images, earlier, request, watch, keep_any=keep_any)
            pictures = seen_together([*earlier.pictures, *new]) if earlier.pictures else new
            conversation = Conversation(earlier.messages, pictures)
            return conversation, self._pieces(self._job(conversation, request, watch, keep_any=keep_any))

    def weigh(self, conversation: Conversation, options: Sequence[IntArray], watch: Stopwatch) -> Weighed:
        """Score options as the answer to a conversation; nothing is decoded.

        Args:
            conversation: What was said.
            options: Token ids int64 [n >= 1] of each, see :mod:`edge_mllm.answer.decoding.options`.
            watch: Running since the question was asked.

        Raises:
            ContextOverflowError: Prompt and longest option do not fit.
            EdgeMLLMError: As :meth:`respond`.
        """
        longest = max(map(len, options))
        request = Request(max_new_tokens=longest)
        with self.turns.turn():
            job = self._job(conversation, request, watch, keep_any=False, least=longest)
            job = replace(job, prompt=self._settler.settle(job.prompt, job.pictures, watch))
            begun, logits = self._prefill(job)
            watch.token()
            with watch.stage("options"):
                scores = score_options(self._cells, begun.ticket, logits, options)
            return Weighed(scores, len(job.prompt.ids), job.prompt.image_tokens, begun.kept)

    def _job(
        self, conversation: Conversation, request: Request, watch: Stopwatch, *, keep_any: bool, least: int = 1
    ) -> Job:
        """What can be refused is refused here; ``least`` tokens of an answer must fit."""
        self._note_question(conversation)
        prompt = self.prompt(conversation)
        expected = self._settler.expected(prompt, conversation.pictures)
        needed = len(expected.ids) + least
        if needed > self._decoder.n_ctx:
            raise ContextOverflowError(needed, self._decoder.n_ctx, expected.image_tokens)
        if request.limits.given:
            limit, plan = self._check(conversation, request, watch, keep_any=keep_any)
            if limit is not None:
                raise LimitError(limit, plan, request.limits, watch.spent_s)
        processors = request.processors
        if request.json_schema is not None:
            processors = (self._reader.grammar(request.json_schema, watch), *processors)
        return Job(prompt, conversation.pictures, request, watch, keep_any, processors)

    def saved(self, conversation: Conversation) -> tuple[Sequence[Key], DecoderState]:
        """What of a conversation is in the cache, cell by cell, and a copy of it. Other cells are dropped."""
        pictures = conversation.pictures
        with self.turns.turn():
            prompt = self._settler.settle(self.prompt(conversation), pictures, Stopwatch())
            keys = prompt_keys(prompt, [picture.key for picture in pictures])
            self._cells.begin(keys, None)
            return self._cells.keys, self._decoder.state()

    def adopt(self, keys: Sequence[Key], state: DecoderState) -> None:
        """Replace the cache's contents by what :meth:`saved` gave.

        Raises:
            EngineError: The decoder does not take it; the cache is empty then.
        """
        with self.turns.turn():
            self._cells.adopt(keys, state)

    def forget(self) -> None:
        """Make every open answer end with an error at its next piece."""
        self._cells.disown()

    def decoder_rows(self, picture: ConversationPicture) -> FloatArray:
        """What the decoder gets of one picture: float32 [prompt_tokens, row_width]. Its question must be noted."""
        watch = Stopwatch()
        with self.turns.turn():
            self._settler.decide([picture], watch)
            return self._encoder.decoder_rows(picture, watch)

    def _note_question(self, conversation: Conversation) -> None:
        """The latest question is what new pictures' tokens are chosen for. Later questions find the same tokens."""
        new = [each for each in conversation.pictures if each.thinned and each.query is None]
        if any(picture.thinned.needs_query for picture in new if picture.thinned):
            ids = tuple(self._reader.text_ids(last_question(conversation.messages)).tolist())
            for picture in new:
                picture.query = ids

    def _pieces(self, job: Job) -> Iterator[Piece]:
        """The answer holds the model from its first piece to its end, or until the stream is closed or dropped."""
        with self.turns.turn():
            yield from self._answered(job)

    def _answered(self, job: Job) -> Iterator[Piece]:
        job = replace(job, prompt=self._settler.settle(job.prompt, job.pictures, job.watch))
        begun, logits = self._prefill(job)
        yield from self._speaker.pieces(job, begun, logits)

    def _prefill(self, job: Job) -> tuple[Prefill, FloatArray]:
        """Encode what is needed and fill the cache; the logits are those of the first token."""
        names, stops = [each.key for each in job.pictures], self._reader.stop_token_ids
        begun = Prefill(self._cells, job.prompt, names, keep_any=job.keep_any, stops=stops)
        return begun, self._filling.fill(begun, job.pictures, job.watch, job.request.max_new_tokens)
