"""Read a task from a file or folder in one of the published layouts."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from edge_mllm.errors import EdgeMLLMError, TaskError
from edge_mllm.measure.eval.readers.json_files import read_json, read_json_folders
from edge_mllm.measure.eval.readers.layouts import find_layout
from edge_mllm.measure.eval.readers.parquet import read_parquet
from edge_mllm.measure.eval.readers.questions import make_task
from edge_mllm.measure.eval.readers.rows import RowFile
from edge_mllm.measure.eval.readers.table import read_table
from edge_mllm.measure.eval.tasks import Task

__all__ = ["read_task"]

DIRECTORY_FILES = ("questions.json", "questions.jsonl", "Questions.csv", "test_questions.jsonl", "metadata.jsonl")
"""What a folder of questions and pictures calls its list of questions."""


def read_task(path: str | Path, images: str | Path | None = None) -> Task:
    """Read .tsv, .csv, .parquet, .json or .jsonl, or a folder that holds one of them with its pictures.

    Args:
        path: The task file or folder.
        images: A further folder to look for picture files in.

    Raises:
        TaskError: It is none of these, or holds no question that can be asked.
    """
    path = Path(path)
    try:
        file = _read_rows(path)
    except EdgeMLLMError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise TaskError(path, f"it cannot be read ({getattr(error, 'strerror', None) or error})") from error
    task = make_task(file, find_layout(path, file.columns), Path(images) if images else None)
    if not task.questions:
        reasons = "; ".join(f"row {row.index}: {row.reason}" for row in task.broken[:3])
        raise TaskError(path, f"no question can be asked ({reasons or 'it has no rows'})")
    return task


def _read_rows(path: Path) -> RowFile:
    if not path.exists():
        raise TaskError(path, "no such file or directory")
    if path.is_dir():
        return _read_directory(path)
    suffix = path.suffix.lower()
    if suffix in (".tsv", ".csv"):
        return read_table(path)
    if suffix == ".parquet":
        return read_parquet([path], path.stem)
    if suffix in (".json", ".jsonl"):
        return read_json(path)
    raise TaskError(path, "its name ends in none of .tsv, .csv, .parquet, .json, .jsonl")


def _read_directory(path: Path) -> RowFile:
    for name in DIRECTORY_FILES:
        if (path / name).exists():
            return replace(_read_rows(path / name), name=path.resolve().name)
    for folder in (path, path / "data"):
        if parts := sorted(folder.glob("*.parquet")):
            return read_parquet(parts, path.name)
    if (file := read_json_folders(path)) is not None:
        return file
    lists = sorted(p for p in path.iterdir() if p.suffix.lower() in (".tsv", ".json", ".jsonl"))
    if len(lists) == 1:
        return _read_rows(lists[0])
    raise TaskError(path, f"the folder holds no list of questions (looked for {', '.join(DIRECTORY_FILES)}, parquet)")
