"""From Ollama's bodies to what the model is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from edge_mllm.answer.decoding.penalties import CountPenalties
from edge_mllm.answer.messages import user_message
from edge_mllm.answer.request import Request, request_of
from edge_mllm.prompt.template import Message
from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.errors import RequestError
from edge_mllm.serve.ollama.bodies import OllamaChat, OllamaGenerate, OllamaMessage, OllamaOptions
from edge_mllm.serve.openai.questions import DEFAULT_TOKENS
from edge_mllm.serve.work.asked import Asked, sampling_of


async def asked_of(context: ServerContext, body: OllamaChat | OllamaGenerate) -> Asked:
    """What a request asks.

    Raises:
        RequestError: It asks for what is not here, or a picture cannot be read.
    """
    messages = list(body.messages) if isinstance(body, OllamaChat) else _messages_of(body)
    if not messages or messages[-1].role != "user":
        raise RequestError(400, "the last message must be the user's", param="messages")
    images = [image for message in messages for image in message.images or ()]
    pictures = await asyncio.to_thread(context.pictures.read_base64, "images", images) if images else []
    return Asked(
        messages=[_message(each) for each in messages],
        pictures=pictures,
        request=_request(context, body.options or OllamaOptions(), body.format),
    )


def _messages_of(body: OllamaGenerate) -> Sequence[OllamaMessage]:
    system = [OllamaMessage(role="system", content=body.system)] if body.system else []
    return [*system, OllamaMessage(role="user", content=body.prompt, images=body.images)]


def _message(message: OllamaMessage) -> Message:
    return user_message(message.content or "", len(message.images or ())) | {"role": message.role}


def _request(context: ServerContext, options: OllamaOptions, form: Any) -> Request:
    most, wanted = context.settings.bounds.answer_tokens, options.num_predict
    sampling = sampling_of(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repeat_penalty,
        seed=options.seed if options.seed is not None and options.seed >= 0 else None,
    )
    penalties = (options.frequency_penalty or 0.0, options.presence_penalty or 0.0)
    return request_of(
        max_new_tokens=DEFAULT_TOKENS if wanted is None else most if wanted < 0 else max(1, min(wanted, most)),
        sampling=sampling,
        stop=options.stop or (),
        processors=[CountPenalties(*penalties)] if any(penalties) else [],
        json_schema=json.dumps({"type": "object"} if form == "json" else form) if form else None,
    )
