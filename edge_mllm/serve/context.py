"""What every route has at hand: the model behind its worker, the settings, what was counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from edge_mllm.serve.access import BodyLedger, client_of, read_bytes
from edge_mllm.serve.bodies import read_body
from edge_mllm.serve.errors import RequestError
from edge_mllm.serve.metrics import Metrics
from edge_mllm.serve.pictures.sources import PictureSources
from edge_mllm.serve.settings import ServerSettings
from edge_mllm.serve.work.turns import submitted
from edge_mllm.serve.work.worker import Job, Worker
from edge_mllm.session.session import Model

T = TypeVar("T", bound=msgspec.Struct)
_QUICK = 256 << 10
"""Bytes that are read in less time than another thread needs to begin."""


@dataclass(frozen=True, kw_only=True)
class ServerContext:
    """Of one server."""

    model: Model
    settings: ServerSettings
    worker: Worker
    pictures: PictureSources
    ledger: BodyLedger
    metrics: Metrics = field(default_factory=Metrics)
    started: int
    """Unix time."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the model may be called in a request; the first is what it is called in answers."""
        return (self.model.name, *self.settings.names)

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end the model's turn."""
        return frozenset(self.model.reader.stop_token_ids)

    def check_name(self, name: str | None) -> None:
        """Refuse a request for another model.

        Raises:
            RequestError: It names one (404).
        """
        if name and name not in self.names and name.removesuffix(":latest") not in self.names:
            reason = f"there is no model '{name[:80]}' here; this server has {' and '.join(self.names)}"
            raise RequestError(404, reason, param="model", code="model_not_found")

    @asynccontextmanager
    async def body(self, request: Request, kind: type[T]) -> AsyncIterator[T]:
        """The body of a request; what it takes is counted until the block ends.

        Raises:
            RequestError: It is too large, too slow, not JSON or not of this form.
        """
        bounds = self.settings.bounds
        async with self.ledger.reading(request, bounds) as taken:
            data = await read_bytes(request, bounds, taken)
            yield read_body(kind, data) if len(data) <= _QUICK else await asyncio.to_thread(read_body, kind, data)

    async def read_pictures(self, urls: list[tuple[str, str]]) -> list[bytes]:
        """The pictures that a request names, see :meth:`PictureSources.read`."""
        if sum(len(url) for _, url in urls) <= _QUICK and all(url.startswith("data:") for _, url in urls):
            return self.pictures.read(urls)
        return await asyncio.to_thread(self.pictures.read, urls)

    @asynccontextmanager
    async def job(self, request: Request, user: str | None, work: Callable[[], Iterator[Any]]) -> AsyncIterator[Job]:
        """Work for the model on its way, see :func:`edge_mllm.serve.work.turns.submitted`."""
        async with submitted(self.worker, client_of(request, user), work) as job:
            yield job
