"""From the body of a chat completion to what the model is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edge_mllm.answer.budget import Detail
from edge_mllm.answer.decoding.penalties import CountPenalties, LogitBias
from edge_mllm.answer.decoding.sampling import LogitsProcessor, SamplingOptions
from edge_mllm.answer.limits import parse_bytes
from edge_mllm.answer.request import Request, request_of
from edge_mllm.errors import SettingError
from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.errors import RequestError
from edge_mllm.serve.openai.bodies import ChatRequest, ImageLimits, ObjectFormat, SchemaFormat
from edge_mllm.serve.openai.conversation import read_conversation, read_reduction
from edge_mllm.serve.work.asked import Asked, sampling_of

DEFAULT_TOKENS = 512
"""Most tokens of an answer where the request does not say."""


async def asked_of(context: ServerContext, body: ChatRequest) -> Asked:
    """What a request asks, with its pictures read.

    Raises:
        RequestError: It asks for what is not here, or a picture may not or cannot be read.
    """
    said = await read_conversation(context, body.model, body.messages, body.detail)
    return Asked(messages=said.messages, pictures=said.pictures, request=_request(context, body, said.details))


def _request(context: ServerContext, body: ChatRequest, details: Sequence[Detail]) -> Request:
    wanted = body.max_completion_tokens or body.max_tokens or DEFAULT_TOKENS
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError(400, "top_logprobs needs logprobs", param="top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise RequestError(400, "stream_options needs stream", param="stream_options")
    return request_of(
        max_new_tokens=min(wanted, context.settings.bounds.answer_tokens),
        sampling=_sampling(body),
        stop=body.stop or (),
        json_schema=_schema(body),
        prompt_lookup=body.prompt_lookup or 0,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        processors=_processors(context, body),
        detail=details,
        max_image_tokens=body.max_image_tokens,
        reduction=read_reduction(body.image_reduction),
        max_ttft=body.max_ttft,
        max_memory=memory_limit(body),
    )


def memory_limit(body: ImageLimits) -> int | None:
    """Bytes, from a number or from a text such as ``1.5GB``.

    Raises:
        RequestError: It is no size.
    """
    if not isinstance(body.max_memory, str):
        return body.max_memory
    try:
        return parse_bytes(body.max_memory)
    except SettingError as error:
        raise RequestError(400, str(error), param="max_memory") from error


def _sampling(body: ChatRequest) -> SamplingOptions:
    return sampling_of(
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        seed=None if body.seed is None else body.seed % (1 << 64),
    )


def _processors(context: ServerContext, body: ChatRequest) -> list[LogitsProcessor]:
    found: list[LogitsProcessor] = []
    if body.frequency_penalty or body.presence_penalty:
        found.append(CountPenalties(body.frequency_penalty or 0.0, body.presence_penalty or 0.0))
    if body.logit_bias:
        try:
            bias = {int(token): value for token, value in body.logit_bias.items()}
        except ValueError:
            raise RequestError(400, "logit_bias has a key that is no token id", param="logit_bias") from None
        found.append(LogitBias(bias, context.model.decoder.n_vocab))
    return found


def _schema(body: ChatRequest) -> str | None:
    if isinstance(body.response_format, ObjectFormat):
        return json.dumps({"type": "object"})
    if isinstance(body.response_format, SchemaFormat):
        return json.dumps(body.response_format.json_schema.schema)
    return None
