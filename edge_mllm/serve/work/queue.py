"""Who is next: a bounded queue in which each client has a turn before another has its second."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Generic, Protocol, TypeVar

from edge_mllm.serve.errors import RequestError


class Waiting(Protocol):
    """What can wait."""

    @property
    def client(self) -> str:
        """Who asks."""
        ...


W = TypeVar("W", bound=Waiting)


class FairQueue(Generic[W]):
    """Clients in turn, and the requests of one client in the order in which they came.

    A client may hold all places but an eighth of them, which are kept for those who have none.

    Args:
        most: Requests of all clients together.
    """

    def __init__(self, most: int) -> None:
        self._most, self._most_of_one = most, max(1, most - max(1, most // 8))
        self._lines: OrderedDict[str, deque[W]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return self._count()

    def put(self, job: W, retry_after_s: int) -> None:
        """Let a request wait.

        Raises:
            RequestError: There is no room: of this client (429), of all (503), or the server is stopping (503).
        """
        with self._changed:
            if self._closed:
                raise RequestError(503, "the server is stopping", code="shutting_down", retry_after_s=retry_after_s)
            if self._count() >= self._most:
                reason = f"{self._most} requests wait already; ask again later"
                raise RequestError(503, reason, code="queue_full", retry_after_s=retry_after_s)
            line = self._lines.setdefault(job.client, deque())
            if len(line) >= self._most_of_one and self._most > 1:
                reason = f"{len(line)} requests of this client wait already; ask again later"
                raise RequestError(429, reason, code="too_many_requests", retry_after_s=retry_after_s)
            line.append(job)
            self._changed.notify()

    def take(self) -> W | None:
        """The next request, waiting for one; None once the queue is closed."""
        with self._changed:
            while not self._lines and not self._closed:
                self._changed.wait()
            if not self._lines:
                return None
            client, line = self._lines.popitem(last=False)
            job = line.popleft()
            if line:
                self._lines[client] = line  # at the end: others come first
            return job

    def drop(self, job: W) -> bool:
        """Take a request out before its turn; False where its turn has come."""
        with self._changed:
            line = self._lines.get(job.client)
            if line is None or job not in line:
                return False
            line.remove(job)
            if not line:
                del self._lines[job.client]
            return True

    def close(self) -> list[W]:
        """Take nothing more; return what waited."""
        with self._changed:
            self._closed = True
            left = [job for line in self._lines.values() for job in line]
            self._lines.clear()
            self._changed.notify_all()
            return left

    def _count(self) -> int:
        return sum(map(len, self._lines.values()))
