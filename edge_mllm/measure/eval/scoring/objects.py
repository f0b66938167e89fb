"""Which objects a description names, and which of them are not in the picture.

AMBER (Wang et al. 2023, arXiv:2311.07397, section 4.2; its ``inference.py`` and ``relation.json``) compares the nouns
of a description with the objects of the picture: CHAIR is the share of named objects that are not there, Cover the
share of the picture's objects that are named, Hal the share of descriptions with any wrong object, Cog the share of
objects that people would expect there, though they are not, and that are named.

AMBER finds nouns with a tagger and takes words with near word vectors for the same. Here neither is at hand: every
word of the lists counts, in singular or plural (those that are mostly verbs or adjectives after an article only), and
only equal words are the same. So the figures compare models with each other; published ones may differ by some points.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
_ARTICLES = frozenset({"a", "an", "the", "this", "that", "his", "her", "its", "their", "one", "another"})
_SELDOM_NOUNS = frozenset({"can", "hot", "leave", "sound", "support", "watch", "tie", "lock", "switch", "file"})
"""Words of AMBER's lists that are verbs or adjectives in most sentences."""
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "leaves": "leave",
    "persons": "person",
}
_PLURALS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""))


@dataclass(frozen=True)
class ObjectWords:
    """What a description of one picture is held against."""

    present: tuple[str, ...]
    """Objects of the picture."""
    expected: tuple[str, ...]
    """Objects that are not there, though one would expect them."""
    synonyms: Mapping[str, tuple[str, ...]]
    """Every object of the whole set -> other words for it, or for its parts."""
    ignored: frozenset[str] = frozenset()
    """Words that are never wrong."""


@dataclass(frozen=True)
class Mentions:
    """Counts of one description."""

    named: int
    """Mentions of any object that the set knows."""
    wrong: int
    """Of them, of objects that are not in the picture."""
    present: int
    """Objects of the picture."""
    covered: int
    """Of them, named."""
    expected: int
    """Objects that one would expect, though they are not there."""
    guessed: int
    """Of them, named."""


def count_mentions(description: str, words: ObjectWords) -> Mentions:
    """Count what a description names."""
    right, guessable = _lookup(words.present, words), _lookup(words.expected, words)
    vocabulary = {*words.synonyms, *(other for others in words.synonyms.values() for other in others)}
    named = _named(description, {word.lower() for word in vocabulary})
    wrong = [word for word in named if word not in words.ignored and word not in right]
    return Mentions(
        named=len(named),
        wrong=len(wrong),
        present=len(words.present),
        covered=len({right[word] for word in named if word in right and word not in words.ignored}),
        expected=len(words.expected),
        guessed=len({guessable[word] for word in wrong if word in guessable}),
    )


def _lookup(objects: Sequence[str], words: ObjectWords) -> dict[str, int]:
    """Word -> which object it names; where several fit, the first that has it as another word, as AMBER counts."""
    found: dict[str, int] = {}
    for number, name in enumerate(objects):
        for other in words.synonyms.get(name, ()):
            found.setdefault(other.lower(), number)
    for number, name in enumerate(objects):
        found.setdefault(name.lower(), number)
    return found


def _named(description: str, vocabulary: set[str]) -> list[str]:
    before, found = "", []
    for word in _WORD.findall(description.lower()):
        single = _singular(word, vocabulary)
        if single and (single not in _SELDOM_NOUNS or word != single or before in _ARTICLES):
            found.append(single)
        before = word
    return found


def _singular(word: str, vocabulary: set[str]) -> str:
    """The word of the vocabulary that this is a form of; empty when there is none."""
    if word in vocabulary:
        return word
    if _IRREGULAR.get(word) in vocabulary:
        return _IRREGULAR[word]
    for ending, single in _PLURALS:
        if word.endswith(ending) and (stem := word.removesuffix(ending) + single) in vocabulary:
            return stem
    return ""


def mention_figures(mentions: Sequence[Mentions]) -> dict[str, float]:
    """CHAIR, Cover, Hal and Cog over descriptions, as shares; 0 where there is nothing to count."""
    total = {name: sum(asdict(entry)[name] for entry in mentions) for name in asdict(mentions[0])}
    return {
        "chair": _share(total["wrong"], total["named"]),
        "cover": _share(total["covered"], total["present"]),
        "hal": _share(sum(entry.wrong > 0 for entry in mentions), len(mentions)),
        "cog": _share(total["guessed"], total["expected"]),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
