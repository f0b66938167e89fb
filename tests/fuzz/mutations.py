"""Seeded damage to bytes, JSON documents and texts."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

_WORDS = (
    *(None, True, False, 0, -1, 1, 2, 7, 255, 1 << 31, 1 << 40, -(1 << 63), 10**300, 0.5, -0.0, 1e308, 1e-320),
    *("", "x", "\ud800", "\0", "<image>", "../..", "/dev/zero", "a" * 5000, "\N{PILE OF POO}", "1", "null"),
    *([], {}, [[]], {"kind": []}, [1, "x"], {"a": {"b": None}}),
)
_SNIPPETS = (
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ messages.x.y }}",
    "{{ 'a' * 999999 }}",
    "{% set x = messages[0]['content'][0]['text'] %}",
    "{{ raise_exception('no') }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    *("<image>", "{{ 1 / 0 }}", "{%", "}}", "\0", "\ud7ff", "{{ '%d' % 'x' }}", "{{ messages }}", "{{ [] | first }}"),
)


def damaged_bytes(data: bytes, rng: random.Random, *, front: int = 0) -> bytes:
    """A few changed, cut, doubled or inserted places.

    Args:
        data: Whole.
        rng: Decides.
        front: Most places lie in so many first bytes; 0: anywhere.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            break
        end = min(len(changed), front) if front and rng.random() < 0.85 else len(changed)
        place = rng.randrange(end)
        kind = rng.randrange(8)
        if kind <= 3:
            changed[place] = rng.choice(
                (0, 255, 127, 128, rng.randrange(256), changed[place] ^ (1 << rng.randrange(8)))
            )
        elif kind == 4:
            changed[place : place + rng.choice((1, 4, 8))] = rng.randbytes(rng.choice((1, 4, 8)))
        elif kind == 5:
            width = rng.choice((4, 8))
            value = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1))
            changed[place : place + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
        elif kind == 6:
            del changed[place : len(changed) if rng.random() < 0.5 else place + rng.randrange(1, 40)]
        else:
            changed[place:place] = changed[place : place + rng.randrange(1, 40)]
    return bytes(changed)


def damaged_json(text: str, rng: random.Random) -> str:
    """A document with places replaced, removed, renamed or nested; sometimes damaged as text instead."""
    if rng.random() < 0.1:
        return damaged_text(text, rng)
    document = copy.deepcopy(json.loads(text))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        document = _change(document, rng)
    return json.dumps(document)


def _change(document: Any, rng: random.Random) -> Any:
    places = list(_places(document))
    if not places:
        return rng.choice(_WORDS)
    short = [place for place in places if len(place[0]) < 500] or places
    holder, key = rng.choice(short)
    kind, value = rng.randrange(7), holder[key]
    if kind <= 2:
        holder[key] = copy.deepcopy(rng.choice(_WORDS))
    elif kind == 3:
        del holder[key]
    elif kind == 4 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif kind == 5 and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = rng.choice((-value, value + 1, value * 1000, value - 1, float(value), str(value)))
    else:
        for _ in range(rng.choice((1, 1, 300))):
            value = [value]
        holder[key] = value
    return document


def _places(document: Any) -> Any:
    if isinstance(document, dict | list):
        for key in document if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])


def damaged_text(text: str, rng: random.Random) -> str:
    """Spans removed, doubled and exchanged, numbers changed, snippets put in."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((1, 1, 2, 5, 20)))
        kind = rng.randrange(5)
        if kind == 0:
            text = text[:start] + text[end:]
        elif kind == 1:
            text = text[:end] + text[start:]
        elif kind == 2:
            text = text[:start] + rng.choice(_SNIPPETS) + text[start:]
        elif kind == 3:
            text = text[:start] + "".join(rng.sample(text[start:end], end - start)) + text[end:]
        else:
            text = text[:start] + chr(rng.choice((0, 9, 10, 34, 39, 123, 125, 37, 0xD7FF, 0x1F600))) + text[end:]
    return text
