"""A published chat template, made to say where pictures go without knowing the model.

A template of a multimodal model writes its own placeholder for a picture; what it writes is found by rendering one
picture and two, and looking at the difference. libmtmd writes the marks of a picture itself, so the whole placeholder
is replaced by the marker that stands for a picture there. Templates that know no pictures get the marker as text; one
that takes a message's content as one text gets it on a line of its own, as :mod:`edge_mllm.prompt.item_template` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_mllm.errors import PromptError
from edge_mllm.prompt.plain_text import Marks
from edge_mllm.prompt.template import ChatTemplate, Message

_PROBE = "Zq7"
"""A text that no template writes by itself."""


class PictureTemplate:
    """A template that renders messages with a marker for every picture.

    Args:
        source: The template's text.
        special_tokens: bos_token and eos_token as it may use them.
        marker: Stands for one picture.

    Raises:
        PromptError: It cannot be read, or has no place for a user's text.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], marker: str) -> None:
        self._template, self._special, self._marker = ChatTemplate(source), special_tokens, marker
        self.placeholder = self._find_placeholder()
        """What the template itself writes for one picture; None where it knows no pictures."""
        self._plain_text = self.placeholder is None and not self._takes_items()
        if self._plain_text and _PROBE not in (self._try(_PROBE) or ""):
            raise PromptError("the chat template does not show what the user says")

    @property
    def marks(self) -> Marks:
        """Texts that stand for a picture."""
        return Marks((self._marker, *([self.placeholder] if self.placeholder else [])))

    def render(self, messages: Sequence[Message], pictures: int) -> str:
        """Text with a marker for every picture, in which :attr:`marks` that were said are hidden.

        Raises:
            PromptError: The template refuses the messages, or loses a picture.
        """
        messages = self.marks.hide(messages)
        if self.placeholder is not None:
            text = self._template.render(messages, self._special).replace(self.placeholder, self._marker)
        else:
            changed = [{**message, "content": self._content(message["content"])} for message in messages]
            text = self._template.render(changed, self._special)
        found = text.count(self._marker)
        if found != pictures:
            raise PromptError(f"the chat template made {found} places for {pictures} pictures")
        return text

    def _content(self, content: Any) -> Any:
        """Content as a template takes it that knows no pictures."""
        items = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        items = [{"type": "text", "text": self._marker} if item.get("type") == "image" else item for item in items]
        return "\n".join(str(item.get("text", "")) for item in items) if self._plain_text else items

    def _find_placeholder(self) -> str | None:
        image, text = {"type": "image"}, {"type": "text", "text": _PROBE}
        one, two = self._try([image, text]), self._try([image, image, text])
        if one is None or two is None or len(two) <= len(one) or one.count(_PROBE) != 1:
            return None
        start = next((place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), len(one))
        end = start + len(two) - len(one)
        found = two[start:end].strip()
        adds_only = two[:start] + two[end:] == one
        return found if adds_only and found and (one.count(found), two.count(found)) == (1, 2) else None

    def _takes_items(self) -> bool:
        """Whether a list of text items is shown as its texts."""
        shown = self._try([{"type": "text", "text": _PROBE}, {"type": "text", "text": _PROBE}])
        return shown is not None and shown.count(_PROBE) == 2

    def _try(self, content: Any) -> str | None:
        """What a user's turn becomes; None where the template refuses it, or writes a list down as Python or JSON."""
        try:
            text = self._template.render([{"role": "user", "content": content}], self._special)
        except PromptError:
            return None
        return None if "'type'" in text or '"type"' in text else text
