"""What was said in a request: messages with places for pictures, and the pictures, read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_mllm.answer.budget import Detail
from edge_mllm.errors import SettingError
from edge_mllm.picture.reduction.spec import TokenReduction, reduction_of
from edge_mllm.prompt.template import Message
from edge_mllm.serve.context import ServerContext
from edge_mllm.serve.errors import RequestError
from edge_mllm.serve.openai.bodies import ChatMessage, ImagePart, ImageUrl, TextPart


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Of one request."""

    messages: Sequence[Message]
    pictures: Sequence[bytes]
    """One for each place, in order."""
    details: Sequence[Detail]
    """One for each picture."""


async def read_conversation(
    context: ServerContext, model: str | None, messages: Sequence[ChatMessage], detail: Detail
) -> Conversation:
    """Messages as templates take them, and their pictures.

    Args:
        context: Of the server.
        model: The name in the request.
        messages: As they were sent.
        detail: Of pictures that do not carry their own.

    Raises:
        RequestError: It is for another model, nothing is asked, or a picture may not or cannot be read.
    """
    context.check_name(model)
    if messages[-1].role != "user":
        raise RequestError(400, "the last message must be the user's", param="messages")
    places = _places(messages)
    return Conversation(
        messages=[_message(each) for each in messages],
        pictures=await context.read_pictures([(param, image.url) for param, image in places]),
        details=[image.detail if image.detail != "auto" else detail for _, image in places],
    )


def read_reduction(text: str | None) -> TokenReduction | None:
    """A reduction of visual tokens.

    Raises:
        RequestError: It cannot be read.
    """
    try:
        return reduction_of(text)
    except SettingError as error:
        raise RequestError(400, str(error), param="image_reduction") from error


def _message(message: ChatMessage) -> Message:
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return {"role": role, "content": [{"type": "text", "text": message.content}]}
    content: list[dict[str, str]] = [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
        for part in message.content
    ]
    return {"role": role, "content": content}


def _places(messages: Sequence[ChatMessage]) -> list[tuple[str, ImageUrl]]:
    """Field and picture, in the order of the messages."""
    found = []
    for number, message in enumerate(messages):
        for place, part in enumerate(message.content):
            if isinstance(part, ImagePart):
                whole = part.image_url if isinstance(part.image_url, ImageUrl) else ImageUrl(url=part.image_url)
                found.append((f"messages[{number}].content[{place}].image_url", whole))
    return found
