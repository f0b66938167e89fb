"""The page that a person sees: the files beside this module, read once and served under fixed names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.errors import RequestError
from edge_mllm.serve.responses import refusal

_FOLDER = Path(__file__).with_name("page")
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""No line of code and no file but the server's own, and no frame around the page."""

_Get = Callable[[ServerContext, Request], Awaitable[Response]]


def front_routes() -> dict[str, _Get]:
    """The page at ``/`` and its files below ``/page``; names are looked up, no path is made of them."""
    files = {file.name: (file.read_bytes(), _KINDS[file.suffix]) for file in _FOLDER.iterdir() if file.is_file()}

    async def front(_context: ServerContext, _: Request) -> Response:
        return _response(*files["index.html"])

    async def part(_context: ServerContext, request: Request) -> Response:
        found = files.get(request.path_params["name"])
        return refusal(RequestError(404, "Not Found", code="route_not_found")) if found is None else _response(*found)

    return {"/": front, "/page/{name}": part}


def _response(data: bytes, kind: str) -> Response:
    return Response(data, headers={**_HEADERS, "Content-Type": kind})
