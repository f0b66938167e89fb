"""Chat templates that want a message's content as one text, made to take a list of texts and pictures.

Templates of language models, which some multimodal checkpoints keep, write ``message['content']`` down as it is. Before
such a template goes a line of Jinja that joins the items of a list, with what stands for a picture on a line of its
own. The result is a template like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from edge_mllm.errors import PromptError
from edge_mllm.prompt.template import ChatTemplate

Content = Literal["items", "text"]
_PROBE = "Zq7"
"""A text that no template writes by itself."""
_LISTED = ("'type'", '"type"')
"""In what a template writes that writes a list down as Python or JSON does."""
_JOINING = (
    "{% set joined = namespace(messages=[]) %}{% for message in messages %}{% set parts = namespace(texts=[]) %}"
    "{% if message['content'] is string or message['content'] is not iterable %}{% set whole = message %}{% else %}"
    "{% for item in message['content'] %}{% set parts.texts = parts.texts + "
    "[PICTURE if item['type'] == 'image' else item['text']] %}{% endfor %}"
    "{% set whole = dict(message, content=parts.texts | join('\\n')) %}{% endif %}"
    "{% set joined.messages = joined.messages + [whole] %}{% endfor %}{% set messages = joined.messages %}\n"
)


def with_items(source: str, picture: str) -> str:
    """The template with the joining line before it.

    Args:
        source: A template that wants texts.
        picture: Stands for a picture.
    """
    return _JOINING.replace("PICTURE", json.dumps(picture)) + source


def content_kind(source: str, special_tokens: Mapping[str, str], placeholder: str, picture: str) -> Content:
    """What a template takes: lists of items, or texts in which ``picture`` stands for a picture.

    Args:
        source: The template.
        special_tokens: bos_token, ... as it may use them.
        placeholder: What it must write for a picture in the end.
        picture: What is in the text for one.

    Raises:
        PromptError: It shows a question about a picture in neither way; the message says what it does instead.
    """
    trouble = _trouble(source, special_tokens, placeholder)
    if trouble is None:
        return "items"
    if _trouble(with_items(source, picture), special_tokens, placeholder) is None:
        return "text"
    raise PromptError(trouble)


def _trouble(source: str, special_tokens: Mapping[str, str], placeholder: str) -> str | None:
    """What is wrong with how a template writes a question about a picture; None where nothing is."""
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _PROBE}]}
    try:
        text = ChatTemplate(source).render([question], special_tokens)
    except PromptError as error:
        return str(error)
    if any(mark in text for mark in _LISTED):
        return "the chat template writes lists of texts and pictures down as they are"
    if text.count(_PROBE) != 1:
        return "the chat template does not show what the user says"
    if text.count(placeholder) != 1:
        return f"the chat template writes {text.count(placeholder)} times {placeholder} for one picture"
    return None
