"""The one thread that asks the model, and the requests on their way through it.

The event loop hands a :class:`Job` over and reads what it gives; nothing of the model runs in the loop. A job ends
within one token, one tile of a picture, or one run of a prompt, once its client has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edge_mllm.interruption import interruptible
from edge_mllm.serve.errors import GoneError, RequestError
from edge_mllm.serve.work.queue import FairQueue
from edge_mllm.session.session import Model

_log = logging.getLogger(__name__)
_MEMORY = 0.8
"""How much of the estimate of an answer's time is the one before."""


@dataclass(frozen=True)
class TilesDone:
    """How far a picture is."""

    done: int
    total: int


class _End:
    """No event follows."""


class Job:
    """One request on its way.

    Args:
        client: Who asks, for the order.
        work: Called in the worker's thread; gives events.
    """

    def __init__(self, client: str, work: Callable[[], Iterator[Any]]) -> None:
        self.client, self.work = client, work
        self.arrived, self.begun = time.perf_counter(), 0.0
        self._loop, self._events = asyncio.get_running_loop(), asyncio.Queue[Any]()
        self._gone = threading.Event()

    @property
    def queue_s(self) -> float:
        """Seconds that it waited for its turn."""
        return max(0.0, self.begun - self.arrived)

    def leave(self) -> None:
        """Nobody reads it any more."""
        self._gone.set()

    def check(self) -> None:
        """Called by the work between its steps.

        Raises:
            GoneError: Nobody reads it any more.
        """
        if self._gone.is_set():
            raise GoneError

    def tell(self, event: Any) -> None:
        """From the worker's thread: give an event to whoever reads."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def events(self) -> AsyncIterator[Any]:
        """What the work gives, in order.

        Raises:
            BaseException: What the work raised.
        """
        while not isinstance(event := await self._events.get(), _End):
            if isinstance(event, BaseException):
                raise event
            yield event


class Worker:
    """Runs jobs one after the other.

    Args:
        model: Asked by nobody else.
        queue: Where jobs wait.
    """

    def __init__(self, model: Model, queue: FairQueue[Job]) -> None:
        self._model, self._queue = model, queue
        self._running: Job | None = None
        self._mean_s = 1.0
        self._thread = threading.Thread(target=self._run, name="edge-mllm-serve", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def drain(self) -> None:
        """Take nothing more, and refuse the jobs that wait; the one that runs goes on."""
        for job in self._queue.close():
            job.tell(stopping())

    def stop(self) -> None:
        """End the job that runs too, and wait for the thread."""
        self.drain()
        running = self._running
        if running is not None:
            running.tell(stopping())
            running.leave()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self._running is not None

    @property
    def retry_after_s(self) -> int:
        """Whole seconds after which there will likely be room."""
        return max(1, min(600, round(self._mean_s)))

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            RequestError: There is no room.
        """
        self._queue.put(job, self.retry_after_s)

    def leave(self, job: Job) -> None:
        """Its client left: take it out, or have it end at its next step."""
        job.leave()
        self._queue.drop(job)

    def _run(self) -> None:
        while (job := self._queue.take()) is not None:
            self._running = job
            job.begun = time.perf_counter()
            try:
                self._do(job)
            finally:
                self._running = None
                self._mean_s = _MEMORY * self._mean_s + (1 - _MEMORY) * (time.perf_counter() - job.begun)

    def _do(self, job: Job) -> None:
        encoder = self._model.pipeline.parts.encoder

        def tile(done: int, total: int) -> None:
            job.check()
            job.tell(TilesDone(done, total))

        encoder.progress = tile
        try:
            job.check()
            with interruptible(job.check), contextlib.closing(_generator(job.work)) as events:
                for event in events:
                    job.tell(event)
                    job.check()
        except GoneError:
            _log.info("a client left before its answer was there")
        except BaseException as error:  # the thread must live on, and the client must hear of it
            job.tell(error)
        finally:
            encoder.progress = None
            job.tell(_End())


def stopping() -> RequestError:
    """What a request is told that is not answered because the server ends."""
    return RequestError(503, "the server is stopping", code="shutting_down", retry_after_s=10)


def _generator(work: Callable[[], Iterator[Any]]) -> Any:
    """A generator, which can be closed, over what a job does."""
    yield from work()
