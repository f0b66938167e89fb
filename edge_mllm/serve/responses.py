"""Responses that end when their client leaves or their time is over: whole documents, and streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_mllm.serve.bodies import encode
from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.errors import GoneError, RequestError, request_error
from edge_mllm.serve.work.turns import while_there, within
from edge_mllm.serve.work.worker import stopping

_log = logging.getLogger(__name__)

JSON = "application/json"
ErrorForm = Callable[[RequestError], dict[str, Any]]


class Document(Response):
    """A JSON document."""

    media_type = JSON

    def __init__(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(encode(content), status, headers)


def openai_form(error: RequestError) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return error.document


def ollama_form(error: RequestError) -> dict[str, Any]:
    """An error as Ollama's clients read it."""
    return {"error": str(error)}


def refusal(error: BaseException, form: ErrorForm = openai_form) -> Document:
    """What a request is told about an error; what is the server's own fault is logged with its traceback."""
    told = request_error(error)
    if told.status == 500:
        _log.error("a request failed", exc_info=error)
    return Document(form(told), told.status, told.headers)


class Route:
    """A route of ASGI that answers with one document, or with lines as they come.

    Args:
        context: Of the server.
        path: For the counts.
        handler: Given the request, writes its response; what it raises becomes an error's document.
        form: Of that document.
    """

    def __init__(
        self,
        context: ServerContext,
        path: str,
        handler: Callable[[ServerContext, Request, Reply], Awaitable[None]],
        form: ErrorForm = openai_form,
    ) -> None:
        self._context, self._path, self._handler, self._form = context, path, handler, form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        request, reply = Request(scope, receive), Reply(scope, receive, send, self._form)
        seconds = self._context.settings.bounds.timeout_s
        try:
            await within(seconds, self._handler(self._context, request, reply))
        except GoneError:
            reply.status = 499
        except asyncio.CancelledError:  # by the server that stops, after the time that answers have then
            await reply.fail(stopping())
        except Exception as error:
            await reply.fail(error)
        finally:
            self._context.metrics.answered(self._path, reply.status)


class Reply:
    """What a route writes. Once a stream has begun, an error can only be its last line.

    Args:
        scope: Of the request.
        receive: Tells when the client leaves; used once the body has been read.
        send: Writes.
        form: Of an error's document.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, form: ErrorForm = openai_form) -> None:
        self._scope, self._receive, self._send, self._form = scope, receive, send, form
        self._error_line: Callable[[RequestError], bytes] | None = None
        self.status = 500

    async def gather(self, work: Awaitable[Any]) -> Any:
        """What ``work`` gives, unless the client leaves.

        Raises:
            GoneError: It left.
        """
        return await while_there(self._receive, work)

    async def document(self, content: Any, headers: dict[str, str] | None = None) -> None:
        """Answer with one JSON document."""
        await self._respond(Document(content, 200, headers))

    async def stream(
        self, lines: AsyncIterator[bytes], media_type: str, error_line: Callable[[RequestError], bytes]
    ) -> None:
        """Answer with lines as they come. The first one is waited for, so that a refusal still has its status.

        Args:
            lines: To write.
            media_type: Of all of them.
            error_line: How an error is told after the first line.

        Raises:
            GoneError: The client left.
        """
        await while_there(self._receive, self._write(lines, media_type, error_line))

    async def _write(
        self, lines: AsyncIterator[bytes], media_type: str, error_line: Callable[[RequestError], bytes]
    ) -> None:
        begun = False
        async for line in lines:
            if not begun:
                headers = MutableHeaders({"content-type": media_type, "cache-control": "no-store"})
                headers["x-accel-buffering"] = "no"
                await self._send({"type": "http.response.start", "status": 200, "headers": headers.raw})
                begun, self.status, self._error_line = True, 200, error_line
            if line:
                await self._send({"type": "http.response.body", "body": line, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        self._error_line = None

    async def fail(self, error: Exception) -> None:
        """Tell of an error, as a document or as the last line."""
        if self._error_line is None:
            response = refusal(error, self._form)
            if response.status_code == 408:  # after other errors, what is left of the body is read and dropped
                response.headers["Connection"] = "close"
            await self._respond(response)
            return
        told = request_error(error)
        if told.status == 500:
            _log.error("an answer failed", exc_info=error)
        line, self._error_line = self._error_line(told), None
        with contextlib.suppress(TimeoutError):  # who does not read need not be told
            async with asyncio.timeout(1):
                await self._send({"type": "http.response.body", "body": line, "more_body": False})

    async def _respond(self, response: Response) -> None:
        self.status = response.status_code
        await response(self._scope, self._receive, self._send)
