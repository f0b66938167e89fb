"""A summary as files: JSON for programs, Markdown for people, CSV for tables."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

COLUMNS = ("level", "name", "questions", "score", "group_score", "accuracy", "precision", "recall", "f1", "f1_no")
COLUMNS_END = ("yes_share", "mme_score", "chair", "cover", "hal", "cog", "unparsed")


def write_report(summary: dict[str, Any], directory: Path) -> tuple[Path, Path, Path]:
    """Write report.json, report.md and report.csv into ``directory``."""
    paths = (directory / "report.json", directory / "report.md", directory / "report.csv")
    texts = (json.dumps(summary, indent=2, ensure_ascii=False) + "\n", to_markdown(summary), to_csv(summary))
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def to_csv(summary: dict[str, Any]) -> str:
    """One line per level and category, figures between 0 and 1."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *COLUMNS_END], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for level, name, figures in _lines(summary):
        writer.writerow({"level": level, "name": name} | figures)
    return text.getvalue()


def to_markdown(summary: dict[str, Any]) -> str:
    """The same in per cent, with what was run and what it cost."""
    run, overall = summary["run"], summary["overall"]
    parts = [f"# {run['task']}: {run['model']}", "", headline(summary), ""]
    if overall["questions"]:
        parts += [*_table(summary), ""]
    if summary.get("mme"):
        parts += [f"MME {name}: {score:.1f}" for name, score in summary["mme"].items()] + [""]
    costs = summary["timings_median"] | summary["usage_median"]
    if costs:
        parts += ["Medians per question: " + ", ".join(f"{name} {value:.4g}" for name, value in costs.items()), ""]
    for title, key in (("Broken rows (not counted)", "broken"), ("Refused (count as wrong)", "refused")):
        if summary[key]:
            parts += [f"## {title}", "", *(f"- {row['index']}: {row['reason']}" for row in summary[key]), ""]
    settings = ", ".join(f"{k} {run[k]}" for k in ("engine", "scorer", "max_new_tokens", "limit", "seed", "layout"))
    parts += [f"Run: {settings}; task {run['task_sha256'][:12]}, model {run['model_sha256'][:12]}."]
    return "\n".join(parts) + "\n"


def headline(summary: dict[str, Any]) -> str:
    """The result in one line."""
    overall = summary["overall"]
    if not overall["questions"]:
        return f"No question counts; {len(summary['broken'])} broken rows."
    low, high = overall["interval_95"]
    text = f"{_percent(overall['score'])} of {overall['questions']} questions"
    text += f" (95 % interval {_percent(low)} to {_percent(high)})"
    for name, label in (("group_score", "groups all right"), ("f1", "F1 of yes")):
        if name in overall:
            text += f", {label} {_percent(overall[name])}"
    counts = {"unparsed": overall.get("unparsed"), "refused": len(summary["refused"]), "broken": len(summary["broken"])}
    return text + "".join(f", {count} {label}" for label, count in counts.items() if count) + "."


def _table(summary: dict[str, Any]) -> list[str]:
    lines = list(_lines(summary))
    names = [n for n in (*COLUMNS[2:], *COLUMNS_END) if any(n in figures for _, _, figures in lines)]
    table = ["| " + " | ".join(["", *names]) + " |", "|" + "---|" * (len(names) + 1)]
    for level, name, figures in lines:
        label = name if level != "overall" else "**all**"
        table.append("| " + " | ".join([label, *(_cell(n, figures.get(n)) for n in names)]) + " |")
    return table


def _lines(summary: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    lines = [("overall", "", summary["overall"])]
    for level, key in (("l2-category", "l2_categories"), ("category", "categories")):
        lines += [(level, name, figures) for name, figures in summary[key].items()]
    return lines


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name in ("questions", "unparsed"):
        return str(value)
    return f"{value:.1f}" if name == "mme_score" else _percent(value)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
