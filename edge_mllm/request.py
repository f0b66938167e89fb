"""What is asked of a model beside the messages themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_mllm.budget import ImageBudget
from edge_mllm.errors import SettingError
from edge_mllm.limits import Limits
from edge_mllm.sampling import LogitsProcessor, SamplingOptions

_MOST_GUESSED = 64


@dataclass(frozen=True, kw_only=True)
class Request:
    """How to answer.

    Raises:
        SettingError: A value is outside its range.
    """

    max_new_tokens: int = 256
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    stop: tuple[str, ...] = ()
    budget: ImageBudget = field(default_factory=ImageBudget)
    limits: Limits = field(default_factory=Limits)
    ignore_eos: bool = False
    """Do not end at the model's stop tokens."""
    processors: tuple[LogitsProcessor, ...] = ()
    """Applied to the logits before sampling."""
    json_schema: str | None = None
    """Hold the answer to this JSON schema; see :mod:`edge_mllm.json_grammar`."""
    prompt_lookup: int = 0
    """Most tokens guessed at a time from what was said before; see :mod:`edge_mllm.prompt_lookup`. 0 is off."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise SettingError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if any(not text for text in self.stop):
            raise SettingError("a stop string is empty; leave it out")
        if not 0 <= self.prompt_lookup <= _MOST_GUESSED:
            raise SettingError(f"prompt_lookup is {self.prompt_lookup}; it must be between 0 and {_MOST_GUESSED}")
        if self.json_schema is not None and self.ignore_eos:
            raise SettingError("an answer of a JSON schema ends where the schema ends; leave ignore_eos out")


def user_message(text: str, pictures: int) -> dict[str, Any]:
    """A user's turn: places for pictures, then the text."""
    return {"role": "user", "content": [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]}


def question_messages(text: str, pictures: int, system: str | None) -> list[dict[str, Any]]:
    """A single question with its pictures, after a system message where there is one."""
    before = [] if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}]
    return [*before, user_message(text, pictures)]


def last_question(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the user said last, without its pictures."""
    content = next((each["content"] for each in reversed(messages) if each["role"] == "user"), "")
    return content if isinstance(content, str) else " ".join(item["text"] for item in content if "text" in item)


def assistant_message(text: str) -> dict[str, Any]:
    """The model's turn, as the template of the next prompt sees it."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
