"""Yes or no: reading it from a reply, and what is counted from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[a-z]+")


def extract_yes_no(reply: str) -> str:
    """Return ``yes``, ``no`` or an empty text.

    The first word decides when it is one of the two (MME's own tool looks at the first four characters); otherwise
    exactly one of them must occur, as in VLMEvalKit's ``YOrN_Extraction``.
    """
    words: list[str] = _WORD.findall(reply.lower())
    if words and words[0] in ("yes", "no"):
        return words[0]
    found = {word for word in words if word in ("yes", "no")}
    return found.pop() if len(found) == 1 else ""


@dataclass(frozen=True)
class YesNoCounts:
    """Replies to yes/no questions; an unparsed reply is neither, so it lowers recall and accuracy."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    precision_no: float
    recall_no: float
    f1_no: float
    yes_share: float


def count_yes_no(pairs: Sequence[tuple[str, str]]) -> YesNoCounts:
    """Count (prediction, truth) pairs, at least one.

    ``precision``, ``recall`` and ``f1`` take ``yes`` as the positive class (POPE, Li et al. 2023, arXiv:2305.10355);
    the ``_no`` figures take ``no``, as AMBER does (Wang et al. 2023, arXiv:2311.07397). Where nothing is positive, 0.
    """
    positive = _precision_recall(pairs, "yes")
    negative = _precision_recall(pairs, "no")
    return YesNoCounts(
        sum(said == truth for said, truth in pairs) / len(pairs),
        *positive,
        *negative,
        sum(said == "yes" for said, _ in pairs) / len(pairs),
    )


def _precision_recall(pairs: Sequence[tuple[str, str]], positive: str) -> tuple[float, float, float]:
    hits = sum(said == truth == positive for said, truth in pairs)
    said_count = sum(said == positive for said, _ in pairs)
    true_count = sum(truth == positive for _, truth in pairs)
    precision = hits / said_count if said_count else 0.0
    recall = hits / true_count if true_count else 0.0
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


MME_PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
MME_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def mme_score(accuracy: float, pair_accuracy: float) -> float:
    """Score of one MME subtask, 0 to 200: acc + acc+ in per cent (Fu et al. 2023, arXiv:2306.13394, section 2.3).

    ``pair_accuracy`` (acc+) is the share of pictures both of whose questions are answered right.
    """
    return 100.0 * (accuracy + pair_accuracy)
