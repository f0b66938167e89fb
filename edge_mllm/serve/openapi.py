"""All routes as OpenAPI 3.1 describes them: requests by the types that read them, responses as clients read them."""

from __future__ import annotations

import functools
from importlib.metadata import version
from typing import Any

import msgspec

from edge_mllm.serve.ollama.bodies import OllamaChat, OllamaGenerate, OllamaShow
from edge_mllm.serve.openai.bodies import ChatRequest
from edge_mllm.serve.openai.decisions import DecisionRequest
from edge_mllm.serve.openai.embeddings import EmbeddingsRequest

_REF = "#/components/schemas/{name}"
_NUMBER, _COUNT, _TEXT = {"type": "number"}, {"type": "integer", "minimum": 0}, {"type": "string"}
_OBJECT: dict[str, Any] = {"type": "object"}
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}


def _closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": required | optional, "required": list(required)}


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_ERROR = _closed(
    {"error": _closed({"message": _TEXT, "type": _TEXT, "param": _nullable(_TEXT), "code": _nullable(_TEXT)})}
)
_OLLAMA_ERROR = _closed({"error": _TEXT})
_USAGE = _closed(
    {
        "prompt_tokens": _COUNT,
        "completion_tokens": _COUNT,
        "total_tokens": _COUNT,
        "prompt_tokens_details": _closed({"cached_tokens": _COUNT, "image_tokens": _COUNT}),
    }
)
_COSTS = _closed(
    {
        "engine": _TEXT,
        "timings": _closed({"ttft_s": _NUMBER, "queue_s": _NUMBER, "vision_s": _NUMBER, "prefill_s": _NUMBER}),
        "images": _list_of(
            _closed({"width": _COUNT, "height": _COUNT, "tiles": _COUNT, "tokens": _COUNT, "source": _TEXT})
        ),
        "peak_rss_bytes": _nullable(_COUNT),
    }
)
_FINISH = {"enum": ["stop", "length"]}
_COMPLETION = _closed(
    {
        "id": _TEXT,
        "object": {"const": "chat.completion"},
        "created": _COUNT,
        "model": _TEXT,
        "choices": _list_of(
            _closed(
                {
                    "index": _COUNT,
                    "message": _closed({"role": {"const": "assistant"}, "content": _TEXT}),
                    "logprobs": _nullable(_closed({"content": _list_of(_OBJECT)})),
                    "finish_reason": _FINISH,
                }
            )
        ),
        "usage": _USAGE,
        "x_edge_mllm": _COSTS,
    }
)
_EMBEDDINGS = _closed(
    {
        "object": {"const": "list"},
        "model": _TEXT,
        "data": _list_of(_closed({"index": _COUNT, "embedding": {"type": ["array", "string"]}})),
        "usage": _closed({"prompt_tokens": _COUNT, "total_tokens": _COUNT}),
    }
)
_DECISION = _closed(
    {
        "object": {"const": "decision"},
        "model": _TEXT,
        "best": _TEXT,
        "options": _list_of(
            _closed({"text": _TEXT, "probability": _NUMBER, "raw_probability": _NUMBER, "logprob": _NUMBER})
        ),
        "calibrated": {"type": "boolean"},
        "usage": _USAGE,
        "x_edge_mllm": _closed({"engine": _TEXT, "timings": _OBJECT, "images": _list_of(_OBJECT)}),
    }
)
_PLAN = _closed(
    {
        "prompt_tokens": _COUNT,
        "image_tokens": _COUNT,
        "reused_tokens": _COUNT,
        "context": _COUNT,
        "fits": {"type": "boolean"},
        "peak_bytes": _COUNT,
        "ttft_s": _nullable(_NUMBER),
        "images": _list_of(_OBJECT),
        "memory": _OBJECT,
    }
)
_OLLAMA_END = {"model": _TEXT, "created_at": _TEXT, "done": {"type": "boolean"}}
_OLLAMA_MODELS = _closed({"models": _list_of(_closed({"name": _TEXT, "model": _TEXT, "size": _COUNT}))})
_MODEL = _closed({"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT})

_POSTS: dict[str, tuple[str, type[msgspec.Struct], dict[str, Any], str | None]] = {
    "/v1/chat/completions": ("Answer a conversation.", ChatRequest, _COMPLETION, "text/event-stream"),
    "/v1/decisions": ("How likely each option is as the answer.", DecisionRequest, _DECISION, None),
    "/v1/embeddings": ("Embed pictures.", EmbeddingsRequest, _EMBEDDINGS, None),
    "/plan": ("What a chat completion would take; nothing is encoded.", ChatRequest, _PLAN, None),
    "/api/chat": (
        "Answer a conversation, Ollama's way.",
        OllamaChat,
        _closed(_OLLAMA_END | {"message": _closed({"role": _TEXT, "content": _TEXT})}),
        "application/x-ndjson",
    ),
    "/api/generate": (
        "Answer a prompt, Ollama's way.",
        OllamaGenerate,
        _closed(_OLLAMA_END | {"response": _TEXT}),
        "application/x-ndjson",
    ),
    "/api/show": (
        "What is known of the model.",
        OllamaShow,
        _closed({"details": _OBJECT, "model_info": _OBJECT}),
        None,
    ),
}
_GETS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "/": ("A page for people.", None),
    "/page/{name}": ("A file of the page.", None),
    "/health": (
        "A sign of life.",
        _closed({"status": {"const": "ok"}, "waiting": _COUNT, "busy": {"type": "boolean"}}),
    ),
    "/metrics": ("Counts and times in Prometheus' form.", None),
    "/openapi.json": ("This.", _OBJECT),
    "/v1/models": ("The model, under each of its names.", _closed({"data": _list_of(_MODEL)})),
    "/v1/models/{name}": ("The model under one name.", _MODEL),
    "/api/tags": ("The model, Ollama's way.", _OLLAMA_MODELS),
    "/api/ps": ("What is in memory.", _OLLAMA_MODELS),
    "/api/version": ("Of this program.", _closed({"version": _TEXT})),
}
_TEXT_KINDS = {"/": ["text/html"], "/page/{name}": ["text/html", "text/css", "text/javascript", "image/svg+xml"]}


@functools.cache
def openapi() -> dict[str, Any]:
    """The document."""
    bodies = list(dict.fromkeys(kind for _, kind, _, _ in _POSTS.values()))
    _, components = msgspec.json.schema_components(bodies, ref_template=_REF)
    posts = {path: {"post": _post(path, *told)} for path, told in _POSTS.items()}
    gets = {path: {"get": _get(path, *told)} for path, told in _GETS.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "edge-mllm", "version": version("edge-mllm")},
        "paths": posts | gets,
        "components": {
            "schemas": components | {"Error": _ERROR, "OllamaError": _OLLAMA_ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _post(
    path: str, summary: str, kind: type[msgspec.Struct], answer: dict[str, Any], stream: str | None
) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": answer}}
    if stream is not None:
        content[stream] = {"schema": _EVENT if stream == "text/event-stream" else _TEXT}
    body = {"application/json": {"schema": {"$ref": _REF.format(name=kind.__name__)}}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": body},
        "responses": {"200": {"description": "Done.", "content": content}, "default": _refusal(path)},
    }


def _get(path: str, summary: str, answer: dict[str, Any] | None) -> dict[str, Any]:
    kinds = ["application/json"] if answer is not None else _TEXT_KINDS.get(path, ["text/plain"])
    found = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done.", "content": {kind: {"schema": answer or _TEXT} for kind in kinds}},
            "default": _refusal(path),
        },
    }
    if "{name}" not in path:
        return found
    return found | {"parameters": [{"name": "name", "in": "path", "required": True, "schema": _TEXT}]}


def _refusal(path: str) -> dict[str, Any]:
    """What every route answers when it refuses or fails; in front of Ollama's routes too stand checks of who asks."""
    error: dict[str, Any] = {"$ref": _REF.format(name="Error")}
    if path.startswith("/api/"):
        error = {"anyOf": [{"$ref": _REF.format(name="OllamaError")}, error]}
    return {"description": "Refused or failed.", "content": {"application/json": {"schema": error}}}
