"""Two results on the same questions, question by question: is the difference more than chance?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mllm.errors import ResultError
from edge_mllm.measure.eval.records import RESULTS, Results, read_results
from edge_mllm.measure.eval.resampling import bootstrap_interval, mcnemar_exact

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """B against A on the questions that count in both; scores between 0 and 1."""

    model_a: str
    model_b: str
    engine_a: str
    engine_b: str
    task: str
    questions: int
    left_out: int
    """Questions that only one of the two has, or that were broken in one."""
    score_a: float
    score_b: float
    difference: float
    """B minus A."""
    interval_95: tuple[float, float]
    """Paired bootstrap interval of the difference."""
    lost: int
    """Questions on which B scores lower."""
    won: int
    """Questions on which B scores higher."""
    same_reply: int
    """Questions with the same reply, letter for letter."""
    mcnemar_p: float | None
    """Exact two-sided p-value; None where scores are not all 0 or 1."""

    @property
    def line(self) -> str:
        """The comparison in one line of text."""
        low, high = (100 * bound for bound in self.interval_95)
        p_value = "" if self.mcnemar_p is None else f", McNemar p = {self.mcnemar_p:.3g}"
        return (
            f"{self.task}: {self.model_a} ({self.engine_a}) {100 * self.score_a:.1f} % -> "
            f"{self.model_b} ({self.engine_b}) {100 * self.score_b:.1f} %: {100 * self.difference:+.2f} points "
            f"(95 % interval {low:+.2f} to {high:+.2f}){p_value}, {self.questions} questions, "
            f"{self.lost} lost, {self.won} won"
        )


def compare_files(a: Path, b: Path, *, seed: int = 0) -> Comparison:
    """Compare two result files, or the folders that hold them.

    Raises:
        ResultError: They are not of the same task and scorer, or share no question.
    """
    paths = [path / RESULTS if path.is_dir() else path for path in (a, b)]
    left, right = (read_results(path) for path in paths)
    for name, what in (("task_sha256", "another task file"), ("scorer", "another scorer")):
        if getattr(left.header, name) != getattr(right.header, name):
            raise ResultError(paths[1], f"it was made with {what} than '{paths[0]}'")
    return compare(left, right, seed=seed, path=paths[1])


def compare(a: Results, b: Results, *, seed: int = 0, path: Path | None = None) -> Comparison:
    """Pair two results by question.

    Raises:
        ResultError: They share no question.
    """
    left, right = ({r.index: r for r in results.records if r.score is not None} for results in (a, b))
    shared = [index for index in left if index in right]
    if not shared:
        raise ResultError(path or b.header.model, "the two results share no question")
    pairs = [(left[i].score or 0.0, right[i].score or 0.0) for i in shared]
    differences = [said_b - said_a for said_a, said_b in pairs]
    lost, won = sum(d < 0 for d in differences), sum(d > 0 for d in differences)
    binary = all(score in (0.0, 1.0) for pair in pairs for score in pair)
    return Comparison(
        model_a=a.header.model,
        model_b=b.header.model,
        engine_a=a.header.engine,
        engine_b=b.header.engine,
        task=a.header.task,
        questions=len(shared),
        left_out=len({r.index for r in (*a.records, *b.records)}) - len(shared),
        score_a=sum(score for score, _ in pairs) / len(pairs),
        score_b=sum(score for _, score in pairs) / len(pairs),
        difference=sum(differences) / len(differences),
        interval_95=bootstrap_interval(differences, seed=seed),
        lost=lost,
        won=won,
        same_reply=sum(left[i].reply == right[i].reply for i in shared),
        mcnemar_p=mcnemar_exact(lost, won) if binary else None,
    )
