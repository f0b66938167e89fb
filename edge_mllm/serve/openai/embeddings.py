"""``POST /v1/embeddings``: what the tower and its projector make of pictures, as the decoder reads it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from starlette.requests import Request

from edge_mllm.answer.budget import Detail, image_budget
from edge_mllm.arrays import FloatArray
from edge_mllm.serve.bodies import Body
from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.openai.bodies import ImagePart, ImageUrl, Positive
from edge_mllm.serve.responses import Reply
from edge_mllm.session.session import Model

Encoding = Literal["float", "base64"]
Pooling = Literal["mean", "none"]


class EmbeddingsRequest(Body, frozen=True, kw_only=True):
    """The body. Inputs are pictures: URLs, or items as messages have them."""

    input: str | ImagePart | Annotated[list[str | ImagePart], Meta(min_length=1)]
    model: str | None = None
    encoding_format: Encoding = "float"
    pooling: Annotated[Pooling, Meta(description="mean: one vector a picture; none: one for each visual token")] = (
        "mean"
    )
    detail: Detail = "auto"
    max_image_tokens: Positive | None = None
    dimensions: None = None
    user: str | None = None


async def embeddings(context: ServerContext, request: Request, reply: Reply) -> None:
    """Embed pictures."""
    async with context.body(request, EmbeddingsRequest) as body:
        context.check_name(body.model)
        places = _places(body)
        pictures = await context.read_pictures([(param, image.url) for param, image in places])
        details = [image.detail if image.detail != "auto" else body.detail for _, image in places]

        def work() -> Iterator[FloatArray]:
            yield from _rows(context.model, pictures, details, body.max_image_tokens)

        async with context.job(request, body.user, work) as job:
            rows = await reply.gather(_gathered(job.events()))
        await reply.document(_document(context.model.name, rows, body))


def _places(body: EmbeddingsRequest) -> list[tuple[str, ImageUrl]]:
    items = body.input if isinstance(body.input, list) else [body.input]
    found = []
    for number, item in enumerate(items):
        param = f"input[{number}]" if isinstance(body.input, list) else "input"
        url = item if isinstance(item, str) else item.image_url
        found.append((param, url if isinstance(url, ImageUrl) else ImageUrl(url=url)))
    return found


def _rows(
    model: Model, pictures: Sequence[bytes], details: Sequence[Detail], max_image_tokens: int | None
) -> Iterator[FloatArray]:
    """Embeddings float32 [tokens, n_embd] of each picture; each is tiled as a picture alone."""
    budgets = [image_budget(detail, max_image_tokens, None) for detail in details]
    for picture, budget in zip(pictures, budgets, strict=True):
        (part,) = model.reader.pictures([picture], budget)
        yield model.pipeline.decoder_rows(part)


async def _gathered(events: Any) -> list[FloatArray]:
    return [event async for event in events if isinstance(event, np.ndarray)]


def _document(model: str, rows: Sequence[FloatArray], body: EmbeddingsRequest) -> dict[str, Any]:
    count = sum(len(each) for each in rows)
    return {
        "object": "list",
        "data": [_entry(number, each, body) for number, each in enumerate(rows)],
        "model": model,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def _entry(number: int, rows: FloatArray, body: EmbeddingsRequest) -> dict[str, Any]:
    values = rows.mean(axis=0, dtype=np.float64).astype(np.float32) if body.pooling == "mean" else rows
    if body.encoding_format == "base64":
        shown: Any = base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()
    else:
        shown = values.tolist()
    found = {"object": "embedding", "index": number, "embedding": shown}
    return found | {"x_edge_mllm": {"shape": list(values.shape), "tokens": len(rows)}}
