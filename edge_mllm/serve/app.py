"""All routes of the server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as Path

from edge_mllm.machine.memory import resident_bytes
from edge_mllm.serve.access import BodyLedger, Guard, KeyGuard
from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.errors import RequestError
from edge_mllm.serve.front import front_routes
from edge_mllm.serve.metrics import CONTENT_TYPE
from edge_mllm.serve.ollama.answers import chat, generate
from edge_mllm.serve.ollama.models import ollama_version, running, show, tags
from edge_mllm.serve.openai.chat import chat_completions, plan
from edge_mllm.serve.openai.decisions import decisions
from edge_mllm.serve.openai.embeddings import embeddings
from edge_mllm.serve.openapi import openapi
from edge_mllm.serve.pictures.sources import PictureSources
from edge_mllm.serve.responses import Document, Reply, Route, ollama_form, refusal
from edge_mllm.serve.settings import ServerSettings
from edge_mllm.serve.work.queue import FairQueue
from edge_mllm.serve.work.worker import Job, Worker
from edge_mllm.session.session import Model

_Handler = Callable[[ServerContext, Request, Reply], Awaitable[None]]
_POSTS: dict[str, _Handler] = {
    "/v1/chat/completions": chat_completions,
    "/v1/decisions": decisions,
    "/v1/embeddings": embeddings,
    "/plan": plan,
}
_OLLAMA_POSTS: dict[str, _Handler] = {"/api/chat": chat, "/api/generate": generate, "/api/show": show}


def build_app(model: Model, settings: ServerSettings) -> Starlette:
    """An ASGI application over a model, which nobody else may ask while it runs.

    Args:
        model: Stays open when the application ends.
        settings: How it behaves.

    Returns:
        It; ``state.worker`` is the :class:`edge_mllm.serve.work.worker.Worker`.
    """
    context = ServerContext(
        model=model,
        settings=settings,
        worker=Worker(model, FairQueue[Job](settings.bounds.queue)),
        pictures=PictureSources(settings.sources, settings.bounds),
        ledger=BodyLedger(),
        started=int(time.time()),
    )
    access = settings.access

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        context.worker.start()
        try:
            yield
        finally:
            context.worker.stop()

    allowed: dict[str, Any] = {"allow_origins": access.origins, "allow_methods": ("GET", "POST")}
    app = Starlette(
        routes=_routes(context),
        middleware=[
            Middleware(Guard, access),
            *([Middleware(CORSMiddleware, **allowed, allow_headers=("*",))] if access.origins else []),
            Middleware(KeyGuard, access.api_key),
        ],
        exception_handlers={HTTPException: _refused},
        lifespan=lifespan,
    )
    app.state.worker = context.worker
    return app


def _routes(context: ServerContext) -> list[BaseRoute]:
    gets = {
        **front_routes(),
        "/health": _health,
        "/metrics": _metrics,
        "/openapi.json": _openapi,
        "/v1/models": _models,
        "/v1/models/{name:path}": _model,
        "/api/tags": tags,
        "/api/ps": running,
        "/api/version": ollama_version,
    }
    return [
        *(Path(path, Route(context, path, handler), methods=["POST"]) for path, handler in _POSTS.items()),
        *(
            Path(path, Route(context, path, handler, ollama_form), methods=["POST"])
            for path, handler in _OLLAMA_POSTS.items()
        ),
        *(Path(path, partial(handler, context), methods=["GET"]) for path, handler in gets.items()),
    ]


async def _refused(_: Request, error: Exception) -> Response:
    """What the framework itself refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for these)
    codes = {404: "route_not_found", 405: "method_not_allowed"}
    response = refusal(RequestError(error.status_code, str(error.detail), code=codes.get(error.status_code)))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _openapi(_context: ServerContext, _: Request) -> Response:
    return Document(openapi())


async def _health(context: ServerContext, _: Request) -> Response:
    return Document({"status": "ok", "waiting": context.worker.waiting, "busy": context.worker.busy})


async def _metrics(context: ServerContext, _: Request) -> Response:
    gauges: dict[str, float] = {
        "waiting_requests": context.worker.waiting,
        "busy": int(context.worker.busy),
        "waiting_bytes": context.ledger.bytes,
        "resident_bytes": resident_bytes() or 0,
        "start_time_seconds": context.started,
    }
    return Response(context.metrics.text(gauges), media_type=CONTENT_TYPE)


async def _models(context: ServerContext, _: Request) -> Response:
    return Document({"object": "list", "data": [_entry(context, name) for name in context.names]})


async def _model(context: ServerContext, request: Request) -> Response:
    try:
        name = request.path_params["name"]
        context.check_name(name)
        return Document(_entry(context, name))
    except RequestError as error:
        return refusal(error)


def _entry(context: ServerContext, name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": context.started, "owned_by": "edge-mllm"}
