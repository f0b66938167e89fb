"""Workers of a Ray cluster, through Ray Data: actors that each open the model once, on any machine of it.

Rows carry the paths of pictures and of the model, so both must lie under the same paths on every machine. Ray starts
actors that were lost again, somewhere else, and their rows go out again; records come back in order.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import socket
import warnings
from collections.abc import Generator, Iterator
from typing import Any

from edge_mllm.batch.rows import Row
from edge_mllm.batch.work import Record, RowAnswerer, Work
from edge_mllm.errors import ExtraMissingError, WorkerError

LOCAL = "local"
"""In place of an address: a cluster of this machine alone, for the time of the batch."""
_ROWS, _PARTS = 4, 10_000
"""Fewest rows of a part, and most parts. An actor gets a part at once, and after a loss a part is computed again."""
_PATIENCE_S = 5.0


class RayCluster:
    """Workers of a cluster.

    Args:
        work: What each does.
        address: Of an existing cluster, or :data:`LOCAL`.
        workers: Actors; they are placed where their threads are free.

    Raises:
        ExtraMissingError: Ray is not installed.
    """

    def __init__(self, work: Work, address: str, workers: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray.data
        except ImportError as error:
            raise ExtraMissingError("cluster", "ray[data]") from error
        self._ray: Any = ray
        self._work, self._address, self._workers = work, address, workers

    def answers(self, rows: Iterator[Row]) -> Generator[tuple[Row, Record]]:
        """Rows with their records, in order.

        Raises:
            WorkerError: The cluster cannot be reached, or its actors cannot open the model.
        """
        given = {row.number: row for row in rows}
        if not given:
            return
        with self._connected(), warnings.catch_warnings(action="ignore"):
            data_error = self._ray.data.exceptions.UserCodeException
            try:
                for found in self._dataset(list(given.values())).iter_rows():
                    yield given[int(found["number"])], json.loads(found["record"])
            except (self._ray.exceptions.RayError, data_error) as error:
                raise WorkerError(f"the cluster failed ({_line(error)})") from error

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        _knock(self._address)
        own: dict[str, Any] = {"address": self._address}
        if self._address == LOCAL:  # reached from this machine alone
            own = {"address": LOCAL, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            self._ray.init(**own, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise WorkerError(f"no Ray cluster at '{self._address}' ({_line(error)})") from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield
        finally:
            self._ray.shutdown()

    def _dataset(self, rows: list[Row]) -> Any:
        data = self._ray.data
        context = data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        items = [{"number": row.number, "row": pickle.dumps(row)} for row in rows]
        parts = min(_PARTS, -(-len(items) // _ROWS))
        return data.from_items(items, override_num_blocks=parts).map_batches(
            _Actor,
            fn_kwargs={"work": pickle.dumps(self._work)},
            batch_size=None,
            compute=data.ActorPoolStrategy(size=self._workers),
            num_cpus=self._work.loading.get("threads") or 1,
        )


class _Actor:
    """One worker, for as long as the batch lasts. It opens the model with its first rows."""

    def __init__(self) -> None:
        self._answerer: RowAnswerer | None = None

    def __call__(self, batch: dict[str, Any], work: bytes) -> dict[str, list[Any]]:
        answerer = self._answerer = self._answerer or RowAnswerer(pickle.loads(work))  # noqa: S301  (the driver's)
        rows = [pickle.loads(row) for row in batch["row"]]  # noqa: S301
        records = [json.dumps(answerer.record(row)) for row in rows]
        return {"number": [row.number for row in rows], "record": records}


def _knock(address: str) -> None:
    """Say soon that nobody is there; Ray itself tries for minutes.

    Raises:
        WorkerError: Nothing listens at an address of the form HOST:PORT.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
    except OSError as error:
        raise WorkerError(f"no Ray cluster at '{address}' ({error.strerror or error})") from error


def _line(error: BaseException) -> str:
    """The last line of what Ray tells, which is the error itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
