"""Texts on which tokenizers and chat templates are known to differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

PLAIN = (
    "What does it say?",
    "a  5 and   12,  3.50",
    "1. Milk\n2. Bread\n\n10.  Eggs\n   11) Tea",
    "2026-11-29 at 07:45, +49 30 1234567, 1,000,000.00",
    "  two spaces before, two behind  ",
    "a tab\tand a\r\nline end\n\n\n",
    "cafe\u0301 n\u0303 A\u030a \u1112\u1161\u11ab caf\u00e9",
    "\ufb01ne \u2460 \u00bd x\u00b2 \uff21\uff22",
    "\u0645\u0627 \u0647\u0630\u0627\u061f \u05de\u05d4 \u05d6\u05d4? \u200fabc\u200e",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "\u8fd9\u662f\u4ec0\u4e48\uff1f \u3053\u308c\u306f \uc774\uac83\uc740 \u0e19\u0e35\u0e48",
    "I'm, you'LL, DON'T, it's; naive na\u00efve",
    "f(x) = x**2 - 3*x; a_b[0] != {'c': \"d\"} // \\n",
    "\u00a0no\u2009break\u3000space\u200bzero\ufeff",
    "<b>bold</b> &amp; {{ name }} {% raw %} [INST] <s> </s>",
    "a",
    "",
)
"""Digits behind spaces, numbered lists, letters in two pieces, right to left, emoji, code, spaces of all kinds."""

_AROUND = ("{}", " {}", "{} ", "x{}y", "x {} y", "x  {}  y")
_IN_ONE = 24


def marker_texts(markers: Sequence[str]) -> Iterator[str]:
    """User texts with every marker in them: between spaces, without any, and several in a row.

    Args:
        markers: Declared tokens; those that stand for a picture left out.
    """
    for start in range(0, len(markers), _IN_ONE):
        some = markers[start : start + _IN_ONE]
        yield " and ".join(some)
        yield "x".join(some)
    for number, marker in enumerate(markers[:_IN_ONE]):
        yield _AROUND[number % len(_AROUND)].format(marker)
