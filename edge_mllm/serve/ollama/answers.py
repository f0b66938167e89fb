"""``POST /api/chat`` and ``POST /api/generate``: answers as lines of JSON, or whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from starlette.requests import Request

from edge_mllm.answer.answer import Answer, Piece
from edge_mllm.serve.bodies import encode
from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.errors import RequestError
from edge_mllm.serve.ollama.bodies import OllamaChat, OllamaGenerate
from edge_mllm.serve.ollama.questions import asked_of
from edge_mllm.serve.responses import Reply, ollama_form
from edge_mllm.serve.work.answering import Begun, answer, costs, whole
from edge_mllm.serve.work.worker import Job

LINES = "application/x-ndjson"
_Form = Literal["chat", "generate"]


async def chat(context: ServerContext, request: Request, reply: Reply) -> None:
    """Answer a conversation."""
    async with context.body(request, OllamaChat) as body:
        await _answer(context, request, reply, body, "chat")


async def generate(context: ServerContext, request: Request, reply: Reply) -> None:
    """Answer a prompt."""
    async with context.body(request, OllamaGenerate) as body:
        await _answer(context, request, reply, body, "generate")


async def _answer(
    context: ServerContext, request: Request, reply: Reply, body: OllamaChat | OllamaGenerate, form: _Form
) -> None:
    context.check_name(body.model)
    if _is_empty(body):
        await reply.document(_object(body.model, form, "") | {"done": True, "done_reason": "load"})
        return
    asked = await asked_of(context, body)
    work = partial(answer, context.model, asked, context.model.pipeline.start_watch())
    async with context.job(request, None, work) as job:
        if body.stream:
            await reply.stream(_lines(context, job, body.model, form), LINES, error_line)
        else:
            await reply.document(await reply.gather(_whole(context, job, body.model, form)))


def _is_empty(body: OllamaChat | OllamaGenerate) -> bool:
    """Whether there is nothing to answer: clients load a model so."""
    return not body.messages if isinstance(body, OllamaChat) else not (body.prompt or body.images)


async def _lines(context: ServerContext, job: Job, model: str, form: _Form) -> AsyncIterator[bytes]:
    begun = None
    async for event in job.events():
        if isinstance(event, Begun):
            begun = event
        elif isinstance(event, Piece):
            if event.text:
                yield _line(_object(model, form, event.text) | {"done": False})
            if event.answer is not None and begun is not None:
                yield _line(_object(model, form, "") | _end(context, job, begun, event.answer))


async def _whole(context: ServerContext, job: Job, model: str, form: _Form) -> dict[str, Any]:
    begun, found = await whole(job)
    return _object(model, form, found.text) | _end(context, job, begun, found)


def _object(model: str, form: _Form, text: str) -> dict[str, Any]:
    held = {"message": {"role": "assistant", "content": text}} if form == "chat" else {"response": text}
    return {"model": model, "created_at": now(), **held}


def _end(context: ServerContext, job: Job, begun: Begun, found: Answer) -> dict[str, Any]:
    context.metrics.finished(found, job.queue_s)
    times, usage = found.timings, found.usage
    before = times.preprocess_s + times.vision_s + times.prefill_s
    return {
        "done": True,
        "done_reason": found.finish_reason,
        "total_duration": _nanoseconds(times.ttft_s + times.decode_s),
        "load_duration": _nanoseconds(times.load_s),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": _nanoseconds(before),
        "eval_count": usage.completion_tokens,
        "eval_duration": _nanoseconds(times.decode_s),
        "x_edge_mllm": costs(found, begun, job.queue_s),
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def now() -> str:
    """The time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _line(document: dict[str, Any]) -> bytes:
    return encode(document) + b"\n"


def error_line(error: RequestError) -> bytes:
    """An error in a stream."""
    return _line(ollama_form(error))
