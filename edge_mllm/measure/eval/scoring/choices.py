"""Which option a reply names.

The rule, in this order; the first step that finds a letter decides:

1. ``<answer>...</answer>`` replaces the reply by what is inside.
2. The whole reply is one letter, in any case, with or without brackets and punctuation: ``b``, ``(B)``, ``B.``
3. The last phrase ``answer is X``, ``answer: X``, ``option X`` or ``choice X`` with a capital or bracketed letter.
4. The reply begins with a capital letter and a mark (``B.``, ``B:``, ``B)``, ``(B)``), as in ``B. a red car``.
5. One and the same capital or bracketed letter stands alone in the reply. ``A`` and ``I`` without brackets are words,
   not letters, in replies of more than three words.
6. The reply is an option's text, or holds exactly one option's text as whole words (of texts that hold one another
   the longest counts).

Nothing found: the reply counts as wrong and as unparsed. MMBench (Liu et al. 2023, arXiv:2307.06281, section 4.2) and
VLMEvalKit (``can_infer``) match letters and texts in the same spirit and ask a larger model where that fails; here
nothing is asked, and the number of unparsed replies is reported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_mllm.measure.eval.scoring.metrics import normalise
from edge_mllm.measure.eval.tasks import LETTERS

_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_WHOLE = re.compile(r"[\s\"'`*(\[]*([A-Ia-i])[\s\"'`*)\].:,]*")
_PHRASE = re.compile(r"\b(?:answer|option|choice)(?:\s+is)?\s*:?\s*[\"'`*]*(?:\(([A-Ia-i])\)|([A-I])\b)", re.IGNORECASE)
_START = re.compile(r"\s*[\"'`*]*(?:\(([A-Ia-i])\)|([A-I])[.:)])")
_ALONE = re.compile(r"\(([A-Ia-i])\)|(?<![\w'])([A-I])(?![\w'])")


def extract_letter(reply: str, options: Sequence[str]) -> str:
    """Return the letter of the option a reply names, by the rule above; empty when it names none."""
    if tagged := _TAG.search(reply):
        reply = tagged.group(1)
    letters = LETTERS[: len(options)]
    for found in (_whole(reply), _phrase(reply), _start(reply), _alone(reply, letters)):
        if found and found in letters:
            return found
    return _by_text(reply, options)


def _whole(reply: str) -> str:
    match = _WHOLE.fullmatch(reply)
    return match.group(1).upper() if match else ""


def _phrase(reply: str) -> str:
    found = [m for m in _PHRASE.finditer(reply) if m.group(1) or m.group(2).isupper()]
    return _letter(found[-1]) if found else ""


def _start(reply: str) -> str:
    match = _START.match(reply)
    return _letter(match) if match else ""


def _alone(reply: str, letters: str) -> str:
    words_possible = len(reply.split()) > 3
    found = {
        _letter(match)
        for match in _ALONE.finditer(reply)
        if match.group(1) or not (words_possible and match.group(2) in "AI")
    } & set(letters)
    return found.pop() if len(found) == 1 else ""


def _letter(match: re.Match[str]) -> str:
    return (match.group(1) or match.group(2)).upper()


def _by_text(reply: str, options: Sequence[str]) -> str:
    said = normalise(reply)
    texts = [normalise(option) for option in options]
    if texts.count(said) == 1:
        return LETTERS[texts.index(said)]
    held = {text for text in texts if text and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said)}
    longest = max(held, key=len, default="")
    if longest and all(text in longest for text in held) and texts.count(longest) == 1:
        return LETTERS[texts.index(longest)]
    return ""
