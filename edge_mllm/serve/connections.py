"""Connections that are counted, must send a request's head in time, and must take what they asked for.

uvicorn waits for ever for a head that was begun, and for a client that does not read; a few programs could hold all
connections open that way.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_mllm.serve.bodies import encode
from edge_mllm.serve.errors import RequestError
from edge_mllm.serve.settings import Bounds


def bounded_protocol(bounds: Bounds) -> type[asyncio.Protocol]:
    """A protocol for uvicorn that keeps to these bounds."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"bounds": bounds})


class _BoundedProtocol(H11Protocol):
    """That of uvicorn, with clocks."""

    bounds: Bounds
    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client came."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            transport.close()
            return
        # asyncio leaves this to sockets that say they are TCP; without it a head waits for its acknowledgement (40 ms)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """It sent something."""
        super().data_received(data)
        self._await_head()

    def on_response_complete(self) -> None:
        """It was answered."""
        super().on_response_complete()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It left."""
        self._forget_head()
        self._forget_stall()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """It does not read what was written."""
        super().pause_writing()
        self._forget_stall()
        self._stalled = self.loop.call_later(self.bounds.read_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        self._forget_stall()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What it sent is not HTTP."""
        body = encode(RequestError(400, msg, code="invalid_http").document)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        """Give the next head its time, unless a request is being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_head()
        elif self._head is None:
            self._head = self.loop.call_later(self.bounds.read_s, self.transport.close)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
