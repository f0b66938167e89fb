"""Pieces of a chat template: found by rendering conversations of marks, and kept only if they give the same text.

The phone's runtime has no template language. What a template writes around texts and pictures is read off it here and
then compared with it over conversations of all forms; a template that does something else has no pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from edge_mllm.bundle.spec import PromptSpec
from edge_mllm.bundle.turns import Turns, UserStart
from edge_mllm.errors import PromptError
from edge_mllm.prompt.template import ChatTemplate, Message

_USER, _REPLY, _SYSTEM, _AGAIN = "Edgeuserfirst", "Edgemodelreply", "Edgesystemtext", "Edgeuseragain"
_TEXTS = ("What is this?", "  two\nlines {{ x }} <b>&amp;\n", "Ünï🙂")


class TurnsError(PromptError):
    """A chat template that cannot be written as pieces."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the chat template cannot be written as pieces: {reason}")
        self.reason = reason


def find_turns(template: ChatTemplate, prompt: PromptSpec) -> Turns:
    """The pieces of a template.

    Raises:
        TurnsError: It writes something that they cannot express.
    """
    found = _Finder(template, prompt).turns()
    for messages in _conversations(with_system=found.system is not None):
        try:
            expected = template.render(messages, prompt.special_tokens)
        except PromptError as error:
            raise TurnsError(str(error)) from error
        if render_turns(found, messages) != expected:
            raise TurnsError(f"they differ for {_outline(messages)}")
    return found


def render_turns(turns: Turns, messages: Sequence[Message]) -> str:
    """The text of a conversation whose turns alternate, as the template would write it.

    Args:
        turns: Pieces of the template.
        messages: In lists of items, a user's pictures before the text.
    """
    rest = list(messages)
    system = _text(rest.pop(0)) if rest[0]["role"] == "system" else None
    out = []
    for number, message in enumerate(rest):
        if number % 2:
            out.append(turns.answer + _cleaned(_text(message), turns.trims_reply))
            continue
        pictures = sum(item["type"] == "image" for item in message["content"])
        start = turns.later_pictures if pictures else turns.later
        if number == 0 and system is not None:
            chosen = turns.system_pictures if pictures else turns.system
            assert chosen is not None  # noqa: S101  (asked for only where there is one)
            start = chosen
            out.append(start.before_system + _cleaned(system, turns.trims_system))
        elif number == 0:
            start = turns.first_pictures if pictures else turns.first
        said = _cleaned(_text(message), turns.trims_user)
        out.append(start.before + start.picture * pictures + start.before_text + said)
    return "".join(out) + turns.ask


class _Finder:
    """Renders conversations of marks and cuts them at the marks."""

    def __init__(self, template: ChatTemplate, prompt: PromptSpec) -> None:
        self._template, self._prompt = template, prompt

    def turns(self) -> Turns:
        before, ask = self._cut([_user(_USER)], _USER)
        answer, later, _ = self._again(0)
        system = self._system(0)
        padded = f"  {_USER} \n"
        return Turns(
            first=UserStart(before=before),
            first_pictures=self._pictures(lambda count: self._cut([_user(_USER, count)], _USER)[0]),
            system=None if system is None else UserStart(before_system=system[0], before=system[1]),
            system_pictures=None if system is None else self._system_pictures(system[0]),
            later=UserStart(before=later),
            later_pictures=self._pictures(lambda count: self._again(count)[1]),
            answer=answer,
            ask=ask,
            trims_user=padded not in self._render([_user(padded)]),
            trims_reply=self._trims([_user("x"), _model(padded), _user("x")], padded),
            trims_system=system is not None and self._trims([_said("system", padded), _user("x")], padded),
        )

    def _system(self, pictures: int) -> tuple[str, str] | None:
        """What stands before a system message and between it and the user's text; None where it is not taken."""
        try:
            text = self._render([_said("system", _SYSTEM), _user(_USER, pictures)])
        except PromptError:
            return None
        if _SYSTEM not in text:
            return None
        before, rest = _halves(text, _SYSTEM)
        return before, _halves(rest, _USER)[0]

    def _system_pictures(self, before_system: str) -> UserStart:
        def start(count: int) -> str:
            found = self._system(count)
            if found is None or found[0] != before_system:
                raise TurnsError("a system message is written otherwise beside pictures")
            return found[1]

        found = self._pictures(start)
        return UserStart(
            before_system=before_system, before=found.before, picture=found.picture, before_text=found.before_text
        )

    def _again(self, pictures: int) -> tuple[str, str, str]:
        """Pieces between a first user's text, a reply, a second user's text, and the end."""
        messages = [_user(_USER), _model(_REPLY), _user(_AGAIN, pictures)]
        answer, rest = _halves(_halves(self._render(messages), _USER)[1], _REPLY)
        later, ask = _halves(rest, _AGAIN)
        return answer, later, ask

    def _pictures(self, start: Any) -> UserStart:
        """The parts of beginnings with one, two and three pictures.

        Args:
            start: Gives the beginning of a turn with so many pictures.
        """
        one, two, three = start(1), start(2), start(3)
        length, place = len(two) - len(one), one.find(self._prompt.placeholder)
        for left in range(place, -1, -1):
            before, picture, after = one[:left], one[left : left + length], one[left + length :]
            if self._prompt.placeholder not in picture:
                break
            if (before + picture * 2 + after, before + picture * 3 + after) == (two, three):
                return UserStart(before=before, picture=picture, before_text=after)
        raise TurnsError("pictures of a turn are not written one like the other")

    def _trims(self, messages: Sequence[Message], padded: str) -> bool:
        return padded not in self._render(messages)

    def _cut(self, messages: Sequence[Message], mark: str) -> tuple[str, str]:
        return _halves(self._render(messages), mark)

    def _render(self, messages: Sequence[Message]) -> str:
        return self._template.render(messages, self._prompt.special_tokens)


def _conversations(*, with_system: bool) -> Iterator[list[Message]]:
    """One to three turns, no to two pictures in each, with and without a system message, all texts in every place."""
    for system, length in product((None, *(_TEXTS if with_system else ())), (1, 2, 3)):
        for pictures in product((0, 1, 2), repeat=length):
            texts = [_TEXTS[(sum(pictures) + number) % len(_TEXTS)] for number in range(2 * length)]
            messages: list[Message] = [] if system is None else [_said("system", system)]
            for number, count in enumerate(pictures):
                messages += [_user(texts[2 * number], count), _model(texts[2 * number + 1])]
            yield messages[:-1]


def _outline(messages: Sequence[Message]) -> str:
    """Who speaks, with how many pictures."""
    words = []
    for message in messages:
        count = sum(item["type"] == "image" for item in message["content"])
        words.append(f"{message['role']} ({count} pictures)" if count else str(message["role"]))
    return ", ".join(words)


def _halves(text: str, mark: str) -> tuple[str, str]:
    parts = text.split(mark)
    if len(parts) != 2:
        raise TurnsError(f"a text of a turn is written {len(parts) - 1} times")
    return parts[0], parts[1]


def _said(role: str, text: str, pictures: int = 0) -> dict[str, Any]:
    images = [{"type": "image"} for _ in range(pictures)]
    return {"role": role, "content": [*images, {"type": "text", "text": text}]}


def _user(text: str, pictures: int = 0) -> dict[str, Any]:
    return _said("user", text, pictures)


def _model(text: str) -> dict[str, Any]:
    return _said("assistant", text)


def _text(message: Message) -> str:
    return str(message["content"][-1]["text"])


def _cleaned(text: str, trims: bool) -> str:
    return text.strip() if trims else text
