"""``POST /v1/decisions``: how likely each of given options is as the answer; nothing is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request

from edge_mllm.answer.budget import Detail
from edge_mllm.answer.deciding.decision import Decision
from edge_mllm.serve.bodies import Body
from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.openai.bodies import ChatMessage, Positive
from edge_mllm.serve.openai.conversation import read_conversation, read_reduction
from edge_mllm.serve.responses import Reply
from edge_mllm.serve.work.worker import Job

_MOST_OPTIONS = 256


class DecisionRequest(Body, frozen=True, kw_only=True):
    """The body. Messages are those of a chat completion."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    options: Annotated[list[str], Meta(min_length=2, max_length=_MOST_OPTIONS)]
    model: str | None = None
    whole: Annotated[bool, Meta(description="an option is the whole answer; else its beginning")] = True
    calibrate: Annotated[bool, Meta(description="take off what the model says of an empty picture")] = False
    detail: Detail = "auto"
    max_image_tokens: Positive | None = None
    image_reduction: Annotated[str, Meta(max_length=64)] | None = None
    user: str | None = None


async def decisions(context: ServerContext, request: Request, reply: Reply) -> None:
    """Decide between options."""
    async with context.body(request, DecisionRequest) as body:
        said = await read_conversation(context, body.model, body.messages, body.detail)
        reduction = read_reduction(body.image_reduction)

        def work() -> Iterator[Decision]:
            yield context.model.decide(
                options=body.options,
                images=said.pictures,
                messages=said.messages,
                whole=body.whole,
                calibrate=body.calibrate,
                detail=said.details,
                max_image_tokens=body.max_image_tokens,
                reduction=reduction,
            )

        async with context.job(request, body.user, work) as job:
            await reply.document(await reply.gather(_document(job)))


async def _document(job: Job) -> dict[str, Any]:
    (found,) = [event async for event in job.events() if isinstance(event, Decision)]
    usage = found.usage
    return {
        "object": "decision",
        "model": found.model,
        "best": found.best.text,
        "options": found.to_dict()["options"],
        "calibrated": found.calibrated,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": 0,
            "total_tokens": usage.prompt_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.reused_tokens, "image_tokens": usage.image_tokens},
            "option_tokens": usage.option_tokens,
        },
        "x_edge_mllm": {
            "engine": found.engine,
            "timings": {**asdict(found.timings), "queue_s": job.queue_s},
            "images": [asdict(image) for image in found.images],
        },
    }
