"""``POST /v1/chat/completions`` and ``POST /plan``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.requests import Request

from edge_mllm.answer.answer import Answer, Piece
from edge_mllm.answer.conversation import Conversation
from edge_mllm.serve.bodies import encode
from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.errors import RequestError
from edge_mllm.serve.openai.bodies import ChatRequest, StreamOptions
from edge_mllm.serve.openai.documents import Completion
from edge_mllm.serve.openai.questions import asked_of
from edge_mllm.serve.responses import Reply
from edge_mllm.serve.work.answering import Begun, answer, costs, whole
from edge_mllm.serve.work.tilings import tilings
from edge_mllm.serve.work.worker import Job, TilesDone

EVENTS = "text/event-stream; charset=utf-8"


async def chat_completions(context: ServerContext, request: Request, reply: Reply) -> None:
    """Answer a conversation, whole or as a stream."""
    async with context.body(request, ChatRequest) as body:
        asked = await asked_of(context, body)
        work = partial(answer, context.model, asked, context.model.pipeline.start_watch())
        async with context.job(request, body.user or body.safety_identifier, work) as job:
            completion = Completion.new(context.model.name)
            if not body.stream:
                await reply.document(await reply.gather(_whole(context, job, completion)))
                return
            lines = _lines(context, job, completion, body.stream_options or StreamOptions())
            await reply.stream(lines, EVENTS, _error_line)


async def _whole(context: ServerContext, job: Job, completion: Completion) -> dict[str, Any]:
    begun, found = await whole(job)
    return completion.whole(found, context.ends, _finished(context, job, begun, found))


def _finished(context: ServerContext, job: Job, begun: Begun, found: Answer) -> dict[str, Any]:
    context.metrics.finished(found, job.queue_s)
    return costs(found, begun, job.queue_s)


async def _lines(
    context: ServerContext, job: Job, completion: Completion, options: StreamOptions
) -> AsyncIterator[bytes]:
    """Server-sent events. The first comes when nothing can be refused any more."""
    begun = None
    async for event in job.events():
        if isinstance(event, Begun):
            begun = event
            yield _line(completion.begin())
            if options.include_progress:
                yield _line(completion.tilings(event.tilings))
        elif isinstance(event, TilesDone):
            if options.include_progress:
                yield _line(completion.progress(event.done, event.total))
        elif isinstance(event, Piece):
            if event.text or (event.logprobs is not None and event.token not in context.ends):
                yield _line(completion.piece(event, context.ends))
            if event.answer is not None and begun is not None:
                yield _line(completion.end(event.answer, _finished(context, job, begun, event.answer)))
                if options.include_usage:
                    yield _line(completion.usage(event.answer))
    yield b"data: [DONE]\n\n"


def _line(document: dict[str, Any]) -> bytes:
    return b"data: " + encode(document) + b"\n\n"


def _error_line(error: RequestError) -> bytes:
    return _line(error.document)


async def plan(context: ServerContext, request: Request, reply: Reply) -> None:
    """What a chat completion with the same body would take; nothing is encoded."""
    async with context.body(request, ChatRequest) as body:
        asked = await asked_of(context, body)
        pipeline = context.model.pipeline

        def work() -> Any:
            earlier = Conversation(asked.messages, ())
            conversation, found = pipeline.planned(asked.pictures, earlier, asked.request)
            told = asdict(found)
            cut = zip(told["images"], tilings(conversation.pictures), strict=True)
            images = [each | {"tiling": tiling} for each, tiling in cut]
            yield told | {"images": images, "ttft_s": found.ttft_s, "peak_bytes": found.memory.peak_bytes}

        async with context.job(request, body.user or body.safety_identifier, work) as job:
            await reply.document(await reply.gather(_last(job)))


async def _last(job: Job) -> Any:
    found = None
    async for event in job.events():
        found = event
    return found
