"""A jinja2 sandbox in which a template's work is bounded, not only its reach.

Loops and macros count their rounds, also where every single one is short; what could make a text or a list of any
length in one step (products, sums, padding, replacing) is checked before it is made. A deadline catches templates whose
few steps are long ones.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_ROUNDS = 1 << 20
"""Most rounds of all loops, and calls of macros, of one rendering."""
MAX_SECONDS = 5.0
"""Longest time of one rendering."""
MAX_LENGTH = 1 << 20
"""Longest string or list that a template may make in one step."""
_MAX_POWER_BITS = 64
"""Largest exponent, and most bits of a base, that a template may raise to a power."""
_MAX_INDENT = 100
_TICK, _CONCAT = "edge_mllm_tick", "edge_mllm_concat"
_WIDTH = re.compile(r"\d{6,}")


class _Work:
    """Rounds and time of one rendering."""

    def __init__(self) -> None:
        self._rounds, self._end = 0, time.monotonic() + MAX_SECONDS

    def tick(self) -> None:
        """Count one round."""
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise SecurityError(f"it goes through more than {MAX_ROUNDS} rounds of its loops")
        if self._rounds % 64 == 0 and time.monotonic() > self._end:
            raise SecurityError(f"it takes longer than {MAX_SECONDS:.0f} s")


_work: ContextVar[_Work | None] = ContextVar("work of the present rendering", default=None)


@contextmanager
def bounded() -> Iterator[None]:
    """Bound the work of the template that is rendered in the block."""
    token = _work.set(_Work())
    try:
        yield
    finally:
        _work.reset(token)


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """See the module."""

    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters = {name: _checked(name, filter_) for name, filter_ in self.filters.items()}
        self.filters |= {"tojson": _tojson, _TICK: _tick, _CONCAT: _concat}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parse, and have every loop and macro count its rounds."""
        template = super()._parse(source, name, filename)
        loops = list(template.find_all(nodes.For))
        rounds: list[nodes.For | nodes.Macro | nodes.CallBlock] = list(loops)
        rounds += [*template.find_all(nodes.Macro), *template.find_all(nodes.CallBlock)]
        for node in rounds:
            node.body.insert(0, nodes.ExprStmt(_count(node.lineno), lineno=node.lineno))
        for loop in loops:
            if loop.test is not None:  # rounds that are passed over
                loop.test = nodes.And(_count(loop.lineno), loop.test, lineno=loop.lineno)
        _replace_concatenations(template)
        return template

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse huge products and sums."""
        if operator == "**":
            if not isinstance(right, int | float) or abs(right) > _MAX_POWER_BITS or _bits(left) > _MAX_POWER_BITS:
                raise SecurityError("a power is too large")
        elif operator == "*":
            if _repeats(left, right) or _repeats(right, left):
                raise SecurityError("a product is too large")
        elif operator == "%":
            _check_format(left, right)
        elif _length(left) + _length(right) > 16 * MAX_LENGTH:
            raise SecurityError("a sum is too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102  (as the base class)
        owner = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)  # the sandbox wraps str.format
        if isinstance(owner, str):
            _check_call(getattr(obj, "__name__", ""), owner, args, kwargs)
        return super().call(context, obj, *args, **kwargs)


def _checked(name: str, filter_: Any) -> Any:
    """A filter that refuses arguments with which its result could be of any length."""
    passes = getattr(filter_, "jinja_pass_arg", None)

    def checked(*args: Any, **kwargs: Any) -> Any:
        own = args[1:] if passes is not None else args
        if own:
            _check_call(name, own[0], own[1:], kwargs)
        return filter_(*args, **kwargs)

    if passes is not None:
        checked.jinja_pass_arg = passes  # type: ignore[attr-defined]
    return checked


def _check_call(name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse numbers that say how long a result becomes, and replacements that blow a text up."""
    given = (*args, *kwargs.values())
    if any(isinstance(each, int) and abs(each) > MAX_LENGTH for each in given) and name not in ("default", "d"):
        raise SecurityError(f"a number given to {name} is too large")
    if name == "indent" and isinstance(value, str):
        width = max((each for each in given if isinstance(each, int)), default=4)
        if (value.count("\n") + 1) * width > 16 * MAX_LENGTH:
            raise SecurityError("an indentation is too large")
    if name == "replace" and len(given) >= 2 and isinstance(value, str):
        old, new = str(given[0]), str(given[1])
        if value.count(old) * len(new) > 16 * MAX_LENGTH:
            raise SecurityError("a replacement is too large")
    if name in ("format", "format_map"):
        _check_format(value, given)
    if name == "join":
        between = max((len(each) for each in (value, *given) if isinstance(each, str)), default=0)
        count = max((_length(each) for each in (value, *given) if not isinstance(each, str)), default=0)
        if between * count > 16 * MAX_LENGTH:
            raise SecurityError("a joined text is too large")


def _check_format(form: Any, values: Any) -> None:
    """Refuse widths of millions of characters in a format string, written in it or given with ``*``."""
    if not isinstance(form, str):
        return
    given = values if isinstance(values, tuple | list) else (values,)
    if _WIDTH.search(form) or any(isinstance(each, int) and abs(each) > MAX_LENGTH for each in given if "*" in form):
        raise SecurityError("a width in a format is too large")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: without HTML escapes."""
    if indent is not None and indent > _MAX_INDENT:
        raise SecurityError("an indentation is too large")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _repeats(sequence: Any, times: Any) -> bool:
    """Whether ``sequence * times`` would be a large string or list."""
    if not isinstance(sequence, str | list | tuple) or not isinstance(times, int):
        return False
    return len(sequence) * times > MAX_LENGTH


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _bits(value: Any) -> int:
    """Length of an integer; a float that grows too large raises OverflowError by itself."""
    return value.bit_length() if isinstance(value, int) else 0


def _count(line: int) -> nodes.Filter:
    """An expression that counts a round and is true."""
    found = nodes.Filter(nodes.Const(None), _TICK, [], [], None, None)
    found.set_lineno(line)
    return found


@pass_context  # which keeps it from being computed when the template is compiled
def _tick(_context: Context, _value: Any) -> bool:
    work = _work.get()
    if work is not None:
        work.tick()
    return True


def _concat(values: list[Any]) -> str:
    """``a ~ b``."""
    texts = [str(value) for value in values]
    if sum(map(len, texts)) > 16 * MAX_LENGTH:
        raise SecurityError("a sum is too large")
    return "".join(texts)


def _replace_concatenations(template: nodes.Template) -> None:
    """Have ``a ~ b`` checked, which jinja2 does not let a sandbox intercept."""
    for node in [template, *template.find_all(nodes.Node)]:
        for field, value in list(node.iter_fields()):
            if isinstance(value, nodes.Concat):
                setattr(node, field, _checked_concatenation(value))
            elif isinstance(value, list):
                value[:] = [_checked_concatenation(each) if isinstance(each, nodes.Concat) else each for each in value]


def _checked_concatenation(node: nodes.Concat) -> nodes.Filter:
    found = nodes.Filter(nodes.List(node.nodes), _CONCAT, [], [], None, None)
    found.set_lineno(node.lineno)
    return found
