"""What a worker does for a request that wants an answer: pictures and messages in, pieces out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edge_mllm.answer.answer import Answer, Piece
from edge_mllm.answer.conversation import Conversation
from edge_mllm.answer.timings import Stopwatch
from edge_mllm.serve.work.asked import Asked
from edge_mllm.serve.work.tilings import tilings
from edge_mllm.serve.work.worker import Job
from edge_mllm.session.session import Model


@dataclass(frozen=True, kw_only=True)
class Begun:
    """The request is accepted: nothing of it can be refused any more."""

    tilings: list[dict[str, Any] | None]
    """How its pictures are cut, in order."""


def answer(model: Model, asked: Asked, watch: Stopwatch) -> Iterator[Begun | Piece]:
    """Answer a request. Answers do not depend on what was asked before.

    Args:
        model: Asked by this thread alone.
        asked: What.
        watch: Running since the request came, so that its wait counts as part of ``max_ttft``.
    """
    earlier = Conversation(asked.messages, ())
    conversation, pieces = model.pipeline.ask(asked.pictures, earlier, asked.request, watch, keep_any=False)
    yield Begun(tilings=tilings(conversation.pictures))
    close = getattr(pieces, "close", None)
    with contextlib.ExitStack() as stack:
        if close is not None:
            stack.callback(close)
        yield from pieces


async def whole(job: Job) -> tuple[Begun, Answer]:
    """What an answering job gives once all of it is there.

    Raises:
        BaseException: What the work raised.
    """
    begun, found = None, None
    async for event in job.events():
        if isinstance(event, Begun):
            begun = event
        elif isinstance(event, Piece):
            found = event.answer
    assert begun is not None and found is not None  # noqa: S101  (the last piece carries it)
    return begun, found


def costs(answer: Answer, begun: Begun, queue_s: float) -> dict[str, Any]:
    """What an answer took, as ``x_edge_mllm`` in every kind of response."""
    told = answer.to_dict()
    pictures = [each | {"tiling": tiling} for each, tiling in zip(told["images"], begun.tilings, strict=True)]
    found = {
        "engine": answer.engine,
        "timings": {**asdict(answer.timings), "queue_s": queue_s},
        "images": pictures,
        "peak_rss_bytes": answer.peak_rss_bytes,
    }
    return found | {name: told[name] for name in ("reduction",) if name in told}
