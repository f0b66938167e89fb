"""From the event loop to the worker and back: a request's events, until its client leaves or its time is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

from starlette.types import Receive

from edge_mllm.serve.errors import GoneError, RequestError
from edge_mllm.serve.work.worker import Job, Worker

T = TypeVar("T")


@contextlib.asynccontextmanager
async def submitted(worker: Worker, client: str, work: Callable[[], Iterator[Any]]) -> AsyncIterator[Job]:
    """A job that waits for its turn; it ends with the block.

    Raises:
        RequestError: There is no room.
    """
    job = Job(client, work)
    worker.submit(job)
    try:
        yield job
    finally:
        worker.leave(job)


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What ``work`` gives.

    Raises:
        RequestError: It takes longer (504).
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise RequestError(
            504, f"the answer was not there within {seconds:g} s", code="timeout", retry_after_s=10
        ) from None


async def while_there(receive: Receive, work: Awaitable[T]) -> T:
    """What ``work`` gives; it is cancelled when the client leaves.

    Args:
        receive: Of the request, whose body has been read.
        work: What to do.

    Raises:
        GoneError: The client left.
    """
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise GoneError
        return task.result()
    finally:
        for each in (task, left):
            each.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
