"""From a reply to a score: the scorers by name, and the prompt each kind of question needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_mllm.errors import SettingError
from edge_mllm.measure.eval.scoring import metrics
from edge_mllm.measure.eval.scoring.choices import extract_letter
from edge_mllm.measure.eval.scoring.objects import Mentions, ObjectWords, count_mentions
from edge_mllm.measure.eval.scoring.yes_no import extract_yes_no
from edge_mllm.measure.eval.tasks import LETTERS, Question

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Scored:
    """What a reply was taken to say, and how right it is (0 to 1)."""

    prediction: str
    score: float
    mentions: Mentions | None = None
    """Of descriptions."""


def _choice(reply: str, question: Question) -> Scored:
    letter = extract_letter(reply, question.options)
    return Scored(letter, float(letter == question.answers[0]))


def _yes_no(reply: str, question: Question) -> Scored:
    said = extract_yes_no(reply)
    return Scored(said, float(said == question.answers[0].casefold()))


def _number(reply: str, question: Question) -> Scored:
    return Scored(metrics.last_number(reply), metrics.number(reply, question.answers, question.precision))


def _objects(reply: str, question: Question) -> Scored:
    """1 for a description that names no wrong object."""
    mentions = count_mentions(reply, _object_words(question))
    return Scored(reply.strip(), float(mentions.wrong == 0), mentions)


def _object_words(question: Question) -> ObjectWords:
    if question.objects is None:
        raise SettingError(
            f"the scorer 'objects' needs lists of objects, which question {question.index} does not have"
        )
    return question.objects


def _by_text(measure: Callable[[str, Sequence[str]], float]) -> Callable[[str, Question], Scored]:
    return lambda reply, question: Scored(reply.strip(), measure(reply, question.answers))


OBJECTS = "objects"
"""Counts the objects that a description names."""
SCORERS: dict[str, Callable[[str, Question], Scored]] = {
    "choice": _choice,
    "yes_no": _yes_no,
    "contains": _by_text(metrics.contains),
    "contains_formula": _by_text(metrics.contains_formula),
    "exact": _by_text(metrics.exact),
    "verbatim": _by_text(metrics.verbatim),
    "anls": _by_text(metrics.anls),
    "relaxed": _by_text(metrics.relaxed),
    "number": _number,
    OBJECTS: _objects,
}
LOGPROB = "choice_logprob"
"""Scores options by their probability instead of reading a reply: the one scorer that generates nothing."""
NAMES = (*SCORERS, LOGPROB)


def scorer_of(question: Question, default: str, chosen: str | None) -> str:
    """Name the scorer of a question: the user's choice, the row's, the options', the task's.

    Raises:
        SettingError: The chosen scorer does not exist or cannot score this question.
    """
    if chosen is None:
        return "choice" if question.options else question.scorer or default
    if chosen not in NAMES:
        raise SettingError(f"no scorer is called '{chosen}'; there are {', '.join(NAMES)}")
    if chosen == "yes_no" and (question.options or question.answers[0].casefold() not in ("yes", "no")):
        raise SettingError(
            f"the scorer 'yes_no' needs the answer yes or no, which question {question.index} does not have"
        )
    if chosen == OBJECTS:
        _object_words(question)
    if chosen in ("choice", LOGPROB) and not question.options:
        raise SettingError(f"the scorer '{chosen}' needs options, which question {question.index} does not have")
    return chosen


def score_reply(reply: str, question: Question, scorer: str) -> Scored:
    """Score a generated reply."""
    if scorer != "choice" and question.options:
        # Open scorers compare with the right option's text.
        texts = (question.options[LETTERS.index(question.answers[0])],)
        question = replace(question, answers=texts)
    return SCORERS[scorer](reply, question)


def score_logprobs(logprobs: Sequence[float], question: Question) -> Scored:
    """Take the option with the highest length-normalised log-probability.

    As SEED-Bench ranks answers (Li et al. 2023, arXiv:2307.16125, section 3.4) and V*Bench does (mean cross-entropy
    per token).
    """
    best = max(range(len(logprobs)), key=logprobs.__getitem__)
    return Scored(LETTERS[best], float(LETTERS[best] == question.answers[0]))


def prompt_of(question: Question, scorer: str, suffix: str = "") -> str:
    """Write the prompt: hint, question, options, and how to answer where the set leaves it open."""
    parts = [part for part in (question.hint, question.text) if part]
    if scorer == "choice":
        if not question.options_in_text:
            parts += [f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False)]
        parts.append("Answer with the letter of the right option.")
    elif scorer == "yes_no" and "yes or no" not in question.text.lower():
        parts.append("Please answer yes or no.")
    if suffix:
        parts.append(suffix)
    return "\n".join(parts)
