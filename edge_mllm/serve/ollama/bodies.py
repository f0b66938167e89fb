"""Bodies of ``/api/chat``, ``/api/generate`` and ``/api/show``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge_mllm.serve.bodies import Body

Base64 = str


class OllamaOptions(Body, frozen=True, kw_only=True):
    """How to answer. What changes speed and memory alone is decided when the server starts, and has no effect."""

    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    num_predict: Annotated[int, Meta(ge=-2)] | None = None
    stop: Annotated[str, Meta(min_length=1)] | Annotated[list[str], Meta(max_length=16)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    num_ctx: int | None = None
    num_batch: int | None = None
    num_keep: int | None = None
    num_thread: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    low_vram: bool | None = None
    numa: bool | None = None


class OllamaMessage(Body, frozen=True, kw_only=True):
    """One turn; the last fields are what answers carry, which clients send back empty."""

    role: Literal["system", "user", "assistant"]
    content: str | None = None
    images: list[Base64] | None = None
    thinking: Annotated[str, Meta(max_length=0)] | None = None
    tool_name: None = None
    tool_calls: Annotated[list[Any], Meta(max_length=0)] | None = None


class _Common(Body, frozen=True, kw_only=True):
    model: str
    stream: bool = True
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: OllamaOptions | None = None
    keep_alive: float | str | None = None
    think: Literal[False] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=0)] | None = None


class OllamaChat(_Common, frozen=True, kw_only=True):
    """The body of ``/api/chat``."""

    messages: list[OllamaMessage] = msgspec.field(default_factory=list)
    tools: Annotated[list[Any], Meta(max_length=0)] | None = None


class OllamaGenerate(_Common, frozen=True, kw_only=True):
    """The body of ``/api/generate``."""

    prompt: str = ""
    system: str | None = None
    images: list[Base64] | None = None
    suffix: Annotated[str, Meta(max_length=0)] | None = None
    template: Annotated[str, Meta(max_length=0)] | None = None
    context: Annotated[list[int], Meta(max_length=0)] | None = None
    raw: Literal[False] | None = None


class OllamaShow(Body, frozen=True, kw_only=True):
    """The body of ``/api/show``."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None
