"""What there is to ask, as data: questions with their pictures and reference answers."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_mllm.measure.eval.pictures import Picture
    from edge_mllm.measure.eval.scoring.objects import ObjectWords

LETTERS = "ABCDEFGHI"
"""Names of options, in order; the published sets use up to nine."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question; frozen, so that a run can be resumed against the same list."""

    index: str
    """Unique within the task; the row's own name where it has one."""
    text: str
    answers: tuple[str, ...]
    """Accepted answers; for a question with options exactly one letter."""
    pictures: tuple[Picture, ...]
    options: tuple[str, ...] = ()
    options_in_text: bool = False
    """The text already lists the options, so the prompt does not repeat them."""
    hint: str = ""
    category: str = ""
    l2_category: str = ""
    group: str = ""
    """Questions of one group count together in pair scores (two questions about one picture, two similar pictures)."""
    scorer: str = ""
    """The scorer this row asks for; empty: the task's."""
    precision: int | None = None
    """Decimal places of a numeric answer; None: compare as written."""
    objects: ObjectWords | None = None
    """What a description is held against; the answers then name the picture's objects."""


@dataclass(frozen=True)
class BrokenRow:
    """A row that cannot be asked, and why."""

    index: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """A set of questions with one default scorer."""

    name: str
    layout: str
    sha256: str
    """Of the question file(s); pictures kept beside them are not part of it."""
    scorer: str
    questions: tuple[Question, ...]
    broken: tuple[BrokenRow, ...] = ()

    def sample(self, limit: int | None, seed: int = 0) -> Task:
        """Keep ``limit`` questions drawn with ``seed``, in file order; all when limit is None or larger."""
        if limit is None or limit >= len(self.questions):
            return self
        kept = sorted(random.Random(seed).sample(range(len(self.questions)), limit))  # noqa: S311
        return replace(self, questions=tuple(self.questions[i] for i in kept))
