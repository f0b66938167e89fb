"""The model's own chat template, rendered in jinja2's sandbox.

The environment offers what transformers' ``render_jinja_template`` offers, so that a published template gives the
same text: trimmed blocks, ``break`` and ``continue``, ``tojson`` without HTML escapes, ``raise_exception``,
``strftime_now``, ``dict``, ``namespace`` and ``generation`` blocks. A template is data of strangers: it sees plain
values only, cannot reach attributes of Python objects, and its size, its output and its work are bounded
(:mod:`edge_mllm.prompt.sandbox`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.utils import Namespace

from edge_mllm.errors import PromptError
from edge_mllm.prompt.sandbox import BoundedSandbox, bounded

Message = Mapping[str, Any]
"""``{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "..."}]}``; content may be a string."""

MAX_TEMPLATE_CHARS = 1 << 17
"""Longest template; published ones have up to a third of it, and this many characters can take seconds to compile."""
MAX_RENDERED_CHARS = 1 << 24


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: The template's text.

    Raises:
        PromptError: It is too large or not valid jinja2.
    """

    def __init__(self, source: str) -> None:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise PromptError(f"the chat template is larger than {MAX_TEMPLATE_CHARS} characters")
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise PromptError(f"the chat template cannot be read: {_line(error)}") from error
        except RecursionError as error:
            raise PromptError("the chat template is nested too deeply") from error

    def render(
        self, messages: Sequence[Message], special_tokens: Mapping[str, str], *, add_generation_prompt: bool = True
    ) -> str:
        """Render messages to the prompt's text.

        Raises:
            PromptError: A message holds something else than plain values, or the template refused the messages.
        """
        variables = {
            "messages": [plain(message) for message in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        pieces, length = [], 0
        try:
            with bounded():
                for piece in self._template.generate({**special_tokens, **variables}):
                    pieces.append(piece)
                    length += len(piece)
                    if length > MAX_RENDERED_CHARS:
                        raise PromptError(f"the chat template wrote more than {MAX_RENDERED_CHARS} characters")
        except jinja2.TemplateError as error:
            raise PromptError(f"the chat template refused the messages: {_line(error)}") from error
        except PromptError:
            raise
        except Exception as error:  # a template can raise whatever Python's operators raise
            raise PromptError(f"the chat template failed on the messages: {_line(error)}") from error
        return "".join(pieces)


def plain(value: Any) -> Any:
    """A copy made of None, bool, int, float, str, list and dict only.

    Raises:
        PromptError: The value holds anything else; objects have methods the sandbox cannot judge.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise PromptError(
        f"a message holds a {type(value).__name__}; messages are made of text, numbers, lists and dictionaries"
    )


class _Generation(Extension):
    """``{% generation %}`` ... ``{% endgeneration %}`` marks assistant text for training; here it is only rendered."""

    tags = {"generation"}  # noqa: RUF012 - the base class says set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Give back the body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _TemplateDict:
    """``dict(...)`` in a template, without the type's attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class _Namespace(Namespace):
    """``namespace(...)`` in a template, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # a template may call a variable self
        values = dict(*args[1:], **kwargs)
        for name in values:
            _refuse_underscore(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        Namespace.__setitem__(self, name, value)


def _refuse_underscore(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot have the name {name}")


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _environment() -> BoundedSandbox:
    environment = BoundedSandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.globals = {
        **environment.globals,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _TemplateDict(),
        "namespace": _Namespace,
    }
    return environment


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
