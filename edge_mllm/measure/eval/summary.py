"""What a result file amounts to: overall, per category, and what it cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from edge_mllm.measure.eval.records import Record, Results
from edge_mllm.measure.eval.resampling import bootstrap_interval
from edge_mllm.measure.eval.scoring.objects import Mentions, mention_figures
from edge_mllm.measure.eval.scoring.yes_no import MME_COGNITION, MME_PERCEPTION, count_yes_no, mme_score


def summarise(results: Results) -> dict[str, Any]:
    """Return the report as plain JSON values; scores are between 0 and 1."""
    counted = [record for record in results.records if record.score is not None]
    broken = [record for record in results.records if record.score is None]
    summary: dict[str, Any] = {
        "schema": results.header.schema,
        "run": asdict(results.header),
        "overall": _figures(counted) if counted else {"questions": 0},
        "categories": _by(counted, "category"),
        "l2_categories": _by(counted, "l2_category"),
        "broken": [{"index": record.index, "reason": record.error} for record in broken],
        "refused": [{"index": record.index, "reason": record.error} for record in counted if record.error],
        "timings_median": _medians(record.timings for record in counted),
        "usage_median": _medians(record.usage for record in counted),
        "completion_tokens": sum(record.usage.get("completion_tokens") or 0 for record in counted),
    }
    if counted:
        low, high = bootstrap_interval([record.score or 0.0 for record in counted])
        summary["overall"]["interval_95"] = [low, high]
    if totals := _mme_totals(summary["categories"]):
        summary["mme"] = totals
    return summary


def _by(records: Sequence[Record], field: str) -> dict[str, dict[str, Any]]:
    parts: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if name := getattr(record, field):
            parts[name].append(record)
    return {name: _figures(parts[name]) for name in sorted(parts)}


def _figures(records: Sequence[Record]) -> dict[str, Any]:
    scores = [record.score or 0.0 for record in records]
    figures: dict[str, Any] = {"questions": len(records), "score": sum(scores) / len(scores)}
    read = [record for record in records if record.scorer in ("choice", "yes_no", "number")]
    if read:
        figures["unparsed"] = sum(not record.prediction for record in read)
    if (pairs := _group_score(records)) is not None:
        figures["group_score"] = pairs
    yes_no = [(record.prediction, record.answers[0].casefold()) for record in records if record.scorer == "yes_no"]
    if len(yes_no) == len(records):
        figures |= asdict(count_yes_no(yes_no))
        if pairs is not None:
            figures["mme_score"] = mme_score(figures["accuracy"], pairs)
    if described := [Mentions(**record.mentions) for record in records if record.mentions]:
        figures |= mention_figures(described)
    return figures


def _group_score(records: Sequence[Record]) -> float | None:
    """Share of groups of two or more questions that are all right (MME acc+, MMVP pairs, CircularEval)."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        if record.group:
            groups[record.category, record.group].append(record.score or 0.0)
    whole = [scores for scores in groups.values() if len(scores) > 1]
    if not whole:
        return None
    return sum(min(scores) == 1.0 for scores in whole) / len(whole)


def _mme_totals(categories: dict[str, dict[str, Any]]) -> dict[str, float]:
    """MME's two sums, only where every subtask of a sum is there."""
    totals = {}
    for name, parts in (("perception", MME_PERCEPTION), ("cognition", MME_COGNITION)):
        found = [categories.get(part, {}).get("mme_score") for part in parts]
        if all(score is not None for score in found):
            totals[name] = sum(score for score in found if score is not None)
    return totals


def _medians(entries: Iterable[Mapping[str, float | None]]) -> dict[str, float]:
    """Median of each figure over the questions that have it; None (off, or not known) is no figure."""
    values: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        for name, value in entry.items():
            if value is not None:
                values[name].append(float(value))
    return {name: median(values[name]) for name in sorted(values)}
