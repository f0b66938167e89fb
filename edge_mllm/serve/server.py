"""The process: a socket and uvicorn."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import uvicorn

from edge_mllm.errors import SettingError
from edge_mllm.serve.app import build_app
from edge_mllm.serve.connections import bounded_protocol
from edge_mllm.serve.settings import ServerSettings
from edge_mllm.session.session import Model

_LEAVE_S = 5
"""Seconds that open answers have when the server stops."""


def serve(model: Model, settings: ServerSettings, ready: Callable[[str], None]) -> None:
    """Answer requests until the process is told to stop (SIGINT, SIGTERM).

    Args:
        model: Asked by nobody else meanwhile.
        settings: How to behave.
        ready: Told the address once requests are taken.

    Raises:
        SettingError: The address cannot be had, or the certificate cannot be used.
    """
    model.pipeline.tell_large_pages(False)  # asking the system for it takes longer than all of HTTP
    app = build_app(model, settings)
    config = uvicorn.Config(
        app,
        http=bounded_protocol(settings.bounds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(settings.bounds.read_s),
        timeout_graceful_shutdown=_LEAVE_S,
        h11_max_incomplete_event_size=1 << 16,
        ssl_certfile=None if settings.tls_cert is None else str(settings.tls_cert),
        ssl_keyfile=None if settings.tls_key is None else str(settings.tls_key),
    )
    try:
        config.load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingError(f"`tls_cert` and `tls_key` cannot be used: {error}") from error
    with _bound(settings) as listening:
        server = _Server(config, lambda: ready(_address(listening, settings)), app.state.worker.drain)
        with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again once all is over: the usual end
            server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Says when it takes requests, and when it takes no more."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready, self._stopping = ready, stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn has it."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn has it."""
        self._stopping()
        await super().shutdown(sockets)


def _bound(settings: ServerSettings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingError(f"cannot listen on {settings.host} port {settings.port}: {reason}") from error


def _address(listening: socket.socket, settings: ServerSettings) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'http' if settings.tls_cert is None else 'https'}://{shown}:{port}"
