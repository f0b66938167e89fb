"""Workers on this machine: processes that each open the model; weights that are mapped lie in memory once.

Rows go out to whoever is free, those about the same picture together, and are handed on in the order in which they
went out. A worker that is killed is replaced, and its rows go out again; a row that was being answered when two workers
ended is broken.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from edge_mllm.batch.rows import Row
from edge_mllm.batch.work import Record, RowAnswerer, Work, broken
from edge_mllm.errors import EdgeMLLMError, WorkerError

_AHEAD = 8
"""Rows for each worker that may be out, finished ones that wait for an earlier one included."""
_TOGETHER = 8
"""Most rows about the same pictures that go to one worker together."""
_TRIES = 2


@dataclass
class _Worker:
    """One process."""

    process: Any
    connection: Connection
    ready: bool = False
    """Whether it has opened the model."""
    rows: deque[Row] = field(default_factory=deque)
    """What it has; it works on the first."""


class Pool:
    """So many processes that do the same work."""

    def __init__(self, work: Work, workers: int) -> None:
        self._work, self._count = work, workers
        self._context = multiprocessing.get_context("spawn")  # a fork has no threads of native libraries
        self._workers: list[_Worker] = []
        self._never_opened, self._unopened = True, 0
        """Whether no worker could open the model so far, and how many ended while they did."""

    def answers(self, rows: Iterator[Row]) -> Generator[tuple[Row, Record]]:
        """Rows with their records, in order.

        Raises:
            EdgeMLLMError: A worker cannot open the model, or no row can be answered.
        """
        flow = _Flow(rows, most=self._count * _AHEAD)
        try:
            self._workers = [self._start() for _ in range(self._count)]
            while not flow.ended:
                for worker in self._workers:
                    self._feed(worker, flow)
                for ready in wait([worker.connection for worker in self._workers]):
                    self._receive(next(each for each in self._workers if each.connection is ready), flow)
                yield from flow.finished()
        finally:
            self.close()

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
        self._workers = []

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _feed(self, worker: _Worker, flow: _Flow) -> None:
        """Let a worker have a row more than the one that it works on, so that it need not wait."""
        while worker.ready and len(worker.rows) < 2 and (rows := flow.next()):
            worker.rows += rows
            with contextlib.suppress(OSError):  # it has ended, which is seen when it is listened to
                for row in rows:
                    worker.connection.send(row)

    def _receive(self, worker: _Worker, flow: _Flow) -> None:
        try:
            said = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker, flow)
            return
        if isinstance(said, Exception):
            raise said
        if worker.ready:
            flow.done(worker.rows.popleft(), said)
        worker.ready, self._never_opened = True, False

    def _replace(self, worker: _Worker, flow: _Flow) -> None:
        """Give the rows of a worker that ended to others.

        Raises:
            WorkerError: It ended before it had opened the model; so did every other, or several.
        """
        worker.connection.close()
        worker.process.join()
        how = _how(worker.process.exitcode)
        self._unopened += not worker.ready
        if not worker.ready and (self._never_opened or self._unopened > _TRIES * self._count):
            raise WorkerError(f"a worker {how} while it opened the model; take fewer `workers`")
        flow.again(worker.rows, how)
        self._workers[self._workers.index(worker)] = self._start()


class _Flow:
    """Rows on their way out and back, in order."""

    def __init__(self, rows: Iterator[Row], most: int) -> None:
        self._units, self._most = _together(rows), most
        self._next: list[Row] = next(self._units, [])
        self._again: deque[Row] = deque()
        self._out: deque[Row] = deque()
        """Everything that went out and was not handed on, finished or not."""
        self._records: dict[int, Record] = {}
        self._tries: Counter[int] = Counter()

    @property
    def ended(self) -> bool:
        """Whether every row came back and was handed on."""
        return not self._next and not self._out

    def next(self) -> list[Row]:
        """Rows to send; none where there are none, or too many are ahead of a slow one."""
        if self._again:
            return [self._again.popleft()]
        if not self._next or len(self._out) >= self._most:
            return []
        rows, self._next = self._next, next(self._units, [])
        self._out += rows
        return rows

    def done(self, row: Row, record: Record) -> None:
        """A row came back."""
        self._records[row.number] = record

    def again(self, rows: deque[Row], how: str) -> None:
        """The worker that had these rows ended; the first was being answered."""
        if rows:
            self._tries[rows[0].number] += 1
            if self._tries[rows[0].number] >= _TRIES:
                row = rows.popleft()
                self.done(row, broken(row, f"its worker {how}, twice"))
        self._again += rows

    def finished(self) -> Iterator[tuple[Row, Record]]:
        """Rows that can be handed on now."""
        while self._out and self._out[0].number in self._records:
            row = self._out.popleft()
            yield row, self._records.pop(row.number)


def _together(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows about the same pictures, as they follow each other."""
    unit: list[Row] = []
    for row in rows:
        if unit and (row.pictures != unit[0].pictures or not row.pictures or len(unit) == _TOGETHER):
            yield unit
            unit = []
        unit.append(row)
    if unit:
        yield unit


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _serve(connection: Connection, work: Work) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its workers
    try:
        answerer = RowAnswerer(work)
        connection.send(None)
        while True:
            connection.send(answerer.record(connection.recv()))
    except (EOFError, BrokenPipeError):
        return
    except (EdgeMLLMError, OSError, MemoryError) as error:
        connection.send(WorkerError(str(error)))  # other classes are not all made again from their text
