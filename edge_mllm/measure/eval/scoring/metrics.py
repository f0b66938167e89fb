"""How right a text is: pure functions from an answer and its references to a number between 0 and 1."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")
_EDGES = " \t\n.,:;!?\"'`*"


def normalise(text: str) -> str:
    """Fold case, Unicode form and white space, and drop punctuation at both ends (``"4.50 EUR."`` -> ``4.50 eur``)."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(_EDGES)


def verbatim(reply: str, answers: Sequence[str]) -> float:
    """1 when the reply is an answer, letter for letter; only white space around it is dropped."""
    return float(any(reply.strip() == answer.strip() for answer in answers))


def exact(reply: str, answers: Sequence[str]) -> float:
    """1 when the reply equals an answer after :func:`normalise`."""
    said = normalise(reply)
    return float(any(said == normalise(answer) for answer in answers))


def contains(reply: str, answers: Sequence[str]) -> float:
    """1 when an answer occurs in the reply; lower case, line breaks as spaces.

    As OCRBench scores (Liu et al. 2023, arXiv:2305.07895; OCRBench/example.py).
    """
    said = reply.lower().strip().replace("\n", " ")
    return float(any(answer.lower().strip().replace("\n", " ") in said for answer in answers))


def contains_formula(reply: str, answers: Sequence[str]) -> float:
    """1 when an answer occurs in the reply without any white space, case kept: OCRBench's rule for formulas."""
    said = "".join(reply.split())
    return float(any("".join(answer.split()) in said for answer in answers))


def edit_distance(left: str, right: str) -> int:
    """Levenshtein distance by dynamic programming over one row (Wagner and Fischer 1974)."""
    row = list(range(len(right) + 1))
    for i, char in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(right, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != other))
    return row[-1]


def anls(reply: str, answers: Sequence[str], threshold: float = ANLS_THRESHOLD) -> float:
    """Average normalised Levenshtein similarity of one question: the best answer's, 0 when it is not above half.

    s = 1 - NL where NL < threshold, else 0 (Biten et al. 2019, arXiv:1907.00490, equation 1); case and white space
    do not count, as in the DocVQA evaluation.
    """
    said = " ".join(reply.lower().split())
    best = 0.0
    for answer in answers:
        wanted = " ".join(answer.lower().split())
        length = max(len(said), len(wanted))
        distance = edit_distance(said, wanted) / length if length else 0.0
        if distance < threshold:
            best = max(best, 1.0 - distance)
    return best


def relaxed(reply: str, answers: Sequence[str], tolerance: float = RELAXED_TOLERANCE) -> float:
    """Relaxed accuracy: numbers within 5 % of the answer, other texts equal but for case.

    Masry et al. 2022 (ChartQA, arXiv:2203.10244, section 5.1), with percentages read as fractions and an answer of
    zero compared as text, as in pix2struct's ``relaxed_correctness``.
    """
    return float(any(_relaxed(reply.strip(), answer.strip(), tolerance) for answer in answers))


def _relaxed(said: str, wanted: str, tolerance: float) -> bool:
    said_number, wanted_number = _to_float(said), _to_float(wanted)
    if said_number is None or not wanted_number:
        return said.lower() == wanted.lower()
    return abs(said_number - wanted_number) <= tolerance * abs(wanted_number)


def _to_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def last_number(reply: str) -> str:
    """The last number of a reply, thousands separators removed; empty when there is none."""
    found = _NUMBER.findall(reply)
    return found[-1].replace(",", "") if found else ""


def number(reply: str, answers: Sequence[str], precision: int | None) -> float:
    """1 when the reply's last number equals an answer at the answer's precision.

    MathVista's comparison (Lu et al. 2023, arXiv:2310.02255; ``normalize_extracted_answer``: integers truncated, floats
    rounded to ``precision``). There a language model finds the number in the reply; here it is the last one.
    """
    found = last_number(reply)
    if not found:
        return 0.0
    return float(any(_at_precision(found, precision) == _at_precision(answer, precision) for answer in answers))


def _at_precision(text: str, precision: int | None) -> float | str:
    try:
        value = float(text)
    except ValueError:
        return text.strip()
    if precision is None:
        return value
    return float(int(value)) if precision == 0 else round(value, precision)
