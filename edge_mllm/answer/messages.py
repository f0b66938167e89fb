"""What was said: messages with places for pictures, from a prompt or from a list of messages as chat APIs have it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge_mllm.errors import ImageError, PromptError
from edge_mllm.picture.image import Picture
from edge_mllm.prompt.template import Message

Pictures = Picture | Iterable[Picture]
"""One picture or several."""
ROLES = ("system", "user", "assistant")
_ONE = (str, bytes, bytearray, memoryview, Path, Image.Image, np.ndarray)


@dataclass(frozen=True)
class Said:
    """A conversation as it was handed in."""

    messages: Sequence[Message]
    """Their content is a list of ``{"type": "text", "text": ...}`` and ``{"type": "image"}``."""
    pictures: Sequence[Picture]
    """One for each place, in order."""


def said(
    prompt: str | None, images: Pictures, system: str | None, messages: Iterable[Mapping[str, Any]] | None
) -> Said:
    """A single question, or a conversation in messages.

    Args:
        prompt: What the user says; None where there are ``messages``.
        images: Pictures before the prompt, or for the places in ``messages`` that carry none, in order.
        system: A system message before the prompt.
        messages: Roles ``system``, ``user`` and ``assistant``; content is a text or a list of items, as chat templates
            and OpenAI's API have them: ``{"type": "text", "text": ...}``, ``{"type": "image"}`` with the picture under
            ``image`` or ``path``, ``{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}``.

    Raises:
        PromptError: Both or neither are given, or a message has another form.
        ImageError: ``images`` holds something that is no picture, or a data URL cannot be read.
    """
    pictures = listed(images)
    if messages is None:
        if prompt is None:
            raise PromptError("there is nothing to answer: give a prompt or messages")
        return Said(question_messages(prompt, len(pictures), system), pictures)
    if prompt is not None or system is not None:
        raise PromptError("give a prompt with its system message, or messages, but not both")
    return _read_messages(messages, pictures)


def listed(images: Pictures) -> list[Picture]:
    """Pictures as a list; a picture alone is a list of one.

    Raises:
        ImageError: It is neither a picture nor a list.
    """
    if isinstance(images, _ONE) or hasattr(images, "read"):
        return [_picture(images)]
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise ImageError("argument", f"{type(images).__name__} is neither a picture nor a list of pictures")
    return [_picture(each) for each in images]


def _picture(given: Any) -> Picture:
    """A picture as :func:`edge_mllm.picture.image.load_rgb` takes it; open files and buffers become their bytes."""
    if isinstance(given, bytearray | memoryview):
        return bytes(given)
    found: Picture = given.read() if hasattr(given, "read") else given
    return found


def user_message(text: str, pictures: int) -> dict[str, Any]:
    """A user's turn: places for pictures, then the text."""
    return {"role": "user", "content": [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]}


def system_message(text: str) -> dict[str, Any]:
    """A system message.

    Raises:
        PromptError: It is no text.
    """
    return {"role": "system", "content": [{"type": "text", "text": _text("the system message", text)}]}


def assistant_message(text: str) -> dict[str, Any]:
    """The model's turn, as the template of the next prompt sees it."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def question_messages(text: str, pictures: int, system: str | None) -> list[dict[str, Any]]:
    """A single question with its pictures, after a system message where there is one."""
    before = [] if system is None else [system_message(system)]
    return [*before, user_message(_text("the prompt", text), pictures)]


def last_question(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the user said last, without its pictures."""
    content = next((each["content"] for each in reversed(messages) if each["role"] == "user"), "")
    return content if isinstance(content, str) else " ".join(item["text"] for item in content if "text" in item)


def _read_messages(messages: Iterable[Mapping[str, Any]], given: Sequence[Picture]) -> Said:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise PromptError(f"messages is a {type(messages).__name__}; it must be a list of messages")
    read: list[Message] = []
    places: list[Picture | None] = []
    for number, message in enumerate(messages, 1):
        role, content = _parts(number, message)
        items = [_item(number, item) for item in content]
        read.append({"role": role, "content": [item for item, _ in items]})
        places += [picture for item, picture in items if item["type"] == "image"]
    if not read or read[-1]["role"] != "user":
        raise PromptError("there is nothing to answer: the last message must be the user's")
    waiting = iter(given)
    empty = sum(picture is None for picture in places)
    if empty != len(given):
        raise PromptError(f"the messages have {empty} places without a picture, and {len(given)} are given beside them")
    return Said(read, [next(waiting) if picture is None else picture for picture in places])


def _parts(number: int, message: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
    """Role and content items of one message."""
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        raise PromptError(f"message {number} has no role and content")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise PromptError(f"message {number} has the role {role!r}; known: {', '.join(ROLES)}")
    if isinstance(content, str):
        return str(role), [{"type": "text", "text": content}]
    if isinstance(content, (bytes, Mapping)) or not isinstance(content, Sequence):
        raise PromptError(f"message {number}: its content is a {type(content).__name__}; it must be text or a list")
    return str(role), content


def _item(number: int, item: Any) -> tuple[dict[str, Any], Picture | None]:
    """One item as templates take it, with its picture where it carries one."""
    if isinstance(item, str):
        return {"type": "text", "text": item}, None
    kind = item.get("type") if isinstance(item, Mapping) else type(item).__name__
    if kind == "text":
        return {"type": "text", "text": _text(f"message {number}", item.get("text"))}, None
    if kind == "image":
        held = next((item[name] for name in ("image", "path") if item.get(name) is not None), None)
        return {"type": "image"}, _from_url(item["url"]) if held is None and "url" in item else held
    if kind == "image_url":
        held = item.get("image_url")
        return {"type": "image"}, _from_url(held.get("url") if isinstance(held, Mapping) else held)
    raise PromptError(f"message {number} has an item of type {kind!r}; known: text, image, image_url")


def _from_url(url: Any) -> bytes:
    """The bytes of a data URL. Nothing is fetched from the net, and no file is opened by a URL."""
    if not isinstance(url, str) or not url.startswith("data:"):
        shown = url[:40] if isinstance(url, str) else type(url).__name__
        raise ImageError(f"'{shown}'", "only data: URLs are read; open other pictures yourself and hand them in")
    head, comma, body = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ImageError("data URL", "it is not in base64")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("data URL", f"its base64 is damaged ({error})") from error


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise PromptError(
            f"{what} is {'nothing' if value is None else f'of type {type(value).__name__}'}; it must be text"
        )
    return value
