"""Who is let in, and how much a request may bring.

A page on another site must not use the server through its visitor's browser. Its requests carry its ``Origin``, which
is refused unless it is allowed; a JSON body needs its content type, which a page cannot send to another site without
asking first. A name that its owner points at this machine after the page was loaded (DNS rebinding) stands in ``Host``:
addresses and ``localhost`` are taken there, other names only where they were allowed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_mllm.serve.errors import GoneError, RequestError
from edge_mllm.serve.settings import Access, Bounds

OPEN_ROUTES = ("/health", "/", "/page")
"""What needs no key: a sign of life, and the page, which asks for the key itself."""


class Guard:
    """Refuses requests before any route sees them.

    Args:
        app: What is guarded.
        access: Who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except RequestError as error:
                response = JSONResponse(error.document, error.status, headers=error.headers)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_called(host):
            reason = "this server is not known by that name; call it by its address (or see the option allow-host)"
            raise RequestError(403, reason, code="host_not_allowed")
        own = f"{scope['scheme']}://{host.lower()}"
        if origin is not None and origin.lower() != own and origin.lower() not in self._access.origins:
            reason = "pages of other sites may not ask this server unless they are allowed (option allow-origin)"
            raise RequestError(403, reason, code="origin_not_allowed")

    def _is_called(self, host: str) -> bool:
        name = _host_name(host)
        if name == "localhost" or name.endswith(".localhost") or name in self._access.hosts:
            return True
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return True


def _host_name(host: str) -> str:
    """The name in a Host header, without its port, the brackets of an address and a last dot."""
    host = host.strip().lower()
    if host.startswith("["):
        name, closed, _ = host[1:].partition("]")
        return name if closed else ""
    return host.partition(":")[0].rstrip(".")


class KeyGuard:
    """Asks for the API key.

    Args:
        app: What is guarded.
        key: None lets everybody in.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "http" and self._key is not None and not self._is_open(scope["path"]):
            given = Headers(scope=scope).get("authorization", "")
            scheme, _, key = given.partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(key.strip()), _digest(self._key)):
                error = RequestError(401, "an API key is needed: Authorization: Bearer KEY", code="invalid_api_key")
                await JSONResponse(error.document, 401, headers=error.headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    @staticmethod
    def _is_open(path: str) -> bool:
        return path in OPEN_ROUTES or path.startswith("/page/")


def _digest(text: str) -> bytes:
    """Of one length, so that a comparison tells nothing of the key's."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class BodyLedger:
    """Bytes of the bodies that were read and are not answered yet."""

    def __init__(self) -> None:
        self.bytes = 0

    @asynccontextmanager
    async def reading(self, request: Request, bounds: Bounds) -> AsyncIterator[Taken]:
        """Count what a request takes, until the block ends.

        Raises:
            RequestError: Its content is not JSON (415), or larger than what is taken (413).
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            reason = f"a body needs Content-Type: application/json; got '{kind[:40]}'"
            raise RequestError(415, reason, code="unsupported_media_type")
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise RequestError(
                415, f"a body in the encoding '{encoding[:40]}' is not read", code="unsupported_encoding"
            )
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > bounds.body_bytes:
            raise too_large(bounds)
        taken = Taken(self)
        try:
            yield taken
        finally:
            self.bytes -= taken.bytes


class Taken:
    """What one request takes of a :class:`BodyLedger`."""

    def __init__(self, ledger: BodyLedger) -> None:
        self._ledger, self.bytes = ledger, 0

    def add(self, count: int, bounds: Bounds) -> None:
        """Take more.

        Raises:
            RequestError: All bodies together are too much for now (503).
        """
        self.bytes += count
        self._ledger.bytes += count
        if self._ledger.bytes > bounds.waiting_bytes:
            reason = "the requests that wait are too large together; ask again later"
            raise RequestError(503, reason, code="queue_full", retry_after_s=5)


async def read_bytes(request: Request, bounds: Bounds, taken: Taken) -> bytes:
    """The body.

    Raises:
        RequestError: It is too large (413), or not there in time (408).
        GoneError: The client left.
    """
    pieces = bytearray()
    try:
        async with asyncio.timeout(bounds.read_s):
            async for piece in request.stream():
                taken.add(len(piece), bounds)
                pieces += piece
                if len(pieces) > bounds.body_bytes:
                    raise too_large(bounds)
    except TimeoutError:
        reason = f"the body was not there within {bounds.read_s:g} s"
        raise RequestError(408, reason, code="request_timeout") from None
    except ClientDisconnect:
        raise GoneError from None
    return bytes(pieces)


def too_large(bounds: Bounds) -> RequestError:
    """A body that is not read to its end."""
    return RequestError(413, f"the body has more than {bounds.body_bytes} bytes", code="body_too_large")


def client_of(request: Request, user: str | None) -> str:
    """Who asks, for the order: an address, and whom it says it asks for."""
    address = request.client.host if request.client else ""
    return f"{address} {user or ''}"
