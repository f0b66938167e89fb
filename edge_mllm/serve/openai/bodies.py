"""Bodies of ``/v1/chat/completions`` and of ``/plan``, which takes the same."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from edge_mllm.answer.budget import Detail
from edge_mllm.serve.bodies import Body

Positive = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
_ANY_SEED = (1 << 63) - 1


class TextPart(Body, frozen=True, kw_only=True, tag="text", tag_field="type"):
    """A piece of text."""

    text: str


class ImageUrl(Body, frozen=True, kw_only=True):
    """Where a picture is."""

    url: Annotated[str, Meta(description="data:image/...;base64,..., or file:// and http(s):// where it is allowed")]
    detail: Detail = "auto"


class ImagePart(Body, frozen=True, kw_only=True, tag="image_url", tag_field="type"):
    """A picture."""

    image_url: ImageUrl | str


class ChatMessage(Body, frozen=True, kw_only=True):
    """One turn. The last fields are what OpenAI's answers carry, which clients send back: they may be null."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart | ImagePart]
    name: str | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Meta(max_length=0)] | None = None
    reasoning_content: None = None


class StreamOptions(Body, frozen=True, kw_only=True):
    """What a stream tells beside the text."""

    include_usage: bool = False
    include_obfuscation: bool | None = None
    include_progress: Annotated[bool, Meta(description="objects with x_edge_mllm.progress before the first text")] = (
        False
    )


class JsonSchema(Body, frozen=True, kw_only=True):
    """A schema with its name."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextFormat(Body, frozen=True, kw_only=True, tag="text", tag_field="type"):
    """No format."""


class ObjectFormat(Body, frozen=True, kw_only=True, tag="json_object", tag_field="type"):
    """Any JSON object."""


class SchemaFormat(Body, frozen=True, kw_only=True, tag="json_schema", tag_field="type"):
    """JSON of a schema."""

    json_schema: JsonSchema


class ImageLimits(Body, frozen=True, kw_only=True):
    """Fields of this server beside OpenAI's."""

    detail: Annotated[Detail, Meta(description="of all pictures that do not carry their own")] = "auto"
    max_image_tokens: Annotated[Positive | None, Meta(description="visual tokens of all pictures together")] = None
    max_ttft: Annotated[float, Meta(gt=0)] | None = None
    max_memory: Annotated[int, Meta(gt=0)] | Annotated[str, Meta(max_length=32)] | None = None
    image_reduction: Annotated[str, Meta(max_length=64)] | None = None


class ChatRequest(ImageLimits, frozen=True, kw_only=True):
    """The body."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: Positive | None = None
    max_tokens: Positive | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    stop: Annotated[str, Meta(min_length=1)] | Annotated[list[str], Meta(max_length=16)] | None = None
    seed: Annotated[int, Meta(ge=-_ANY_SEED, le=_ANY_SEED)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: TextFormat | ObjectFormat | SchemaFormat | None = None
    prompt_lookup: Annotated[int, Meta(ge=0, le=64)] | None = None
    modalities: list[Literal["text"]] | None = None
    tools: Annotated[list[Any], Meta(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
