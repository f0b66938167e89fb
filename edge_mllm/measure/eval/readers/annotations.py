"""AMBER keeps its questions, what is right, and lists of words in files of their own (``data`` of its repository)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_mllm.errors import TaskError
from edge_mllm.measure.eval.scoring.objects import ObjectWords

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edge_mllm.measure.eval.readers.rows import Row

QUERIES = "query_"
"""How files of questions begin."""
ANNOTATIONS, SYNONYMS, IGNORED = "annotations.json", "relation.json", "safe_words.txt"


def join_annotations(path: Path, rows: Sequence[Row]) -> tuple[list[Row], list[Path]]:
    """Give every row its truth: yes or no, or the objects of a picture that is to be described.

    Returns:
        The rows, and the files that were read.

    Raises:
        TaskError: The annotations are neither beside the questions nor one folder up, or cannot be read.
    """
    folder = next((place for place in (path.parent, path.parent.parent) if (place / ANNOTATIONS).exists()), None)
    if folder is None:
        raise TaskError(path, f"its answers are in '{ANNOTATIONS}', which is neither beside it nor one folder up")
    try:
        truths = {str(entry["id"]): entry for entry in _json(folder / ANNOTATIONS)}
        listed = _json(folder / SYNONYMS) if (folder / SYNONYMS).exists() else {}
        synonyms = {name: tuple(others) for name, others in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TaskError(path, f"its annotations cannot be read ({error})") from error
    lines = (folder / IGNORED).read_text(encoding="utf-8").splitlines() if (folder / IGNORED).exists() else []
    ignored = frozenset(line.strip().lower() for line in lines if line.strip())
    found = [folder / name for name in (ANNOTATIONS, SYNONYMS, IGNORED) if (folder / name).exists()]
    return [_joined(row, truths, synonyms, ignored) for row in rows], found


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _joined(
    row: Row, truths: Mapping[str, Any], synonyms: Mapping[str, tuple[str, ...]], ignored: frozenset[str]
) -> Row:
    found = truths.get(str(row.values.get("id")))
    if found is None or not found.get("truth"):
        return replace(row, problem=f"has no entry in {ANNOTATIONS}")
    row = replace(row, values=dict(row.values) | {"truth": found["truth"], "type": found.get("type", "")})
    if isinstance(found["truth"], str):
        return row
    if not synonyms:
        return replace(row, problem=f"asks for a description, which needs {SYNONYMS} beside {ANNOTATIONS}")
    present, expected = tuple(found["truth"]), tuple(found.get("hallu", ()))
    return replace(row, objects=ObjectWords(present, expected, synonyms, ignored))
