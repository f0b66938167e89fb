"""What Ollama's clients ask about models: ``/api/tags``, ``/api/ps``, ``/api/show`` and ``/api/version``."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.ollama.bodies import OllamaShow
from edge_mllm.serve.responses import Document, Reply


async def tags(context: ServerContext, _: Request) -> Response:
    """The one model, under each of its names."""
    return Document({"models": [_entry(context, name) for name in context.names]})


async def running(context: ServerContext, _: Request) -> Response:
    """It is in memory for as long as the server runs."""
    size = _bytes(context)
    return Document({"models": [_entry(context, context.model.name) | {"size_vram": 0, "size": size}]})


async def ollama_version(_context: ServerContext, _: Request) -> Response:
    """Of this program."""
    return Document({"version": version("edge-mllm")})


async def show(context: ServerContext, request: Request, reply: Reply) -> None:
    """What is known of the model."""
    async with context.body(request, OllamaShow) as body:
        context.check_name(body.model or body.name)
    decoder = context.model.decoder
    await reply.document(
        {
            "details": _details(context),
            "modified_at": _time(context),
            "model_info": {
                "general.architecture": context.model.engine,
                "general.name": context.model.name,
                f"{context.model.engine}.context_length": decoder.n_ctx,
                f"{context.model.engine}.embedding_length": decoder.n_embd,
            },
            "capabilities": ["completion", "vision"],
            "template": "",
            "parameters": "",
        }
    )


def _entry(context: ServerContext, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "modified_at": _time(context),
        "size": _bytes(context),
        "digest": hashlib.sha256(f"{context.model.name} {_bytes(context)}".encode()).hexdigest(),
        "details": _details(context),
    }


def _details(context: ServerContext) -> dict[str, Any]:
    engine = context.model.engine
    return {
        "parent_model": "",
        "format": engine,
        "family": context.model.name,
        "families": [context.model.name],
        "parameter_size": "",
        "quantization_level": "",
    }


def _bytes(context: ServerContext) -> int:
    return context.model.reader.weight_bytes(pictures=True)


def _time(context: ServerContext) -> str:
    return datetime.fromtimestamp(context.started, UTC).isoformat().replace("+00:00", "Z")
