"""JSON, JSON lines, and folders of one JSON file per picture, with the pictures beside them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.checked import sha256_of
from edge_mllm.errors import TaskError
from edge_mllm.measure.eval.fingerprint import files_sha256
from edge_mllm.measure.eval.readers.annotations import QUERIES, join_annotations
from edge_mllm.measure.eval.readers.rows import Row, RowFile

if TYPE_CHECKING:
    from pathlib import Path

CONTAINERS = ("questions", "data", "annotations", "samples", "items")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def read_json(path: Path) -> RowFile:
    """Read a list of objects, a dictionary of them by name, or a dictionary that holds such a list.

    Raises:
        TaskError: The file is not JSON, or holds no list of questions.
    """
    text = path.read_text(encoding="utf-8-sig")
    records = _json_lines(path, text) if path.suffix.lower() == ".jsonl" else _json_records(path, text)
    rows = [_row(number, record) for number, record in enumerate(records, 1)]
    files = [path]
    if path.name.startswith(QUERIES):
        rows, annotations = join_annotations(path, rows)
        files += annotations
    columns = frozenset(name for row in rows for name in row.values)
    return RowFile(name=path.stem, root=path.parent, sha256=files_sha256(files), columns=columns, rows=tuple(rows))


def read_json_folders(root: Path) -> RowFile | None:
    """Read ``root/*/NAME.json`` beside ``root/*/NAME.jpg`` (the layout of V*Bench); None when there is no such pair."""
    rows: list[Row] = []
    digest = hashlib.sha256()
    for path in sorted(root.glob("*/*.json")):
        picture = next((path.with_suffix(s) for s in PICTURE_SUFFIXES if path.with_suffix(s).exists()), None)
        if picture is None:
            continue
        index = f"{path.parent.name}/{path.stem}"
        digest.update(f"{index}\n{sha256_of(path)}\n".encode())
        try:
            record = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            rows.append(Row(number=len(rows) + 1, values={"index": index}, problem=f"is not JSON ({error})"))
            continue
        if not isinstance(record, dict):
            rows.append(Row(number=len(rows) + 1, values={"index": index}, problem="is not a JSON object"))
            continue
        record |= {"index": index, "image_path": str(picture.relative_to(root)), "category": path.parent.name}
        rows.append(Row(number=len(rows) + 1, values=record))
    if not rows:
        return None
    columns = frozenset(name for row in rows for name in row.values)
    return RowFile(name=root.name, root=root, sha256=digest.hexdigest(), columns=columns, rows=tuple(rows))


def _row(number: int, record: Any) -> Row:
    if isinstance(record, dict):
        return Row(number=number, values=record)
    problem = record if isinstance(record, str) else f"is a {type(record).__name__}, not an object"
    return Row(number=number, values={}, problem=problem)


def _json_lines(path: Path, text: str) -> list[Any]:
    records: list[Any] = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            records.append(f"is not JSON ({error})")
    if not records:
        raise TaskError(path, "it is empty")
    return records


def _json_records(path: Path, text: str) -> list[Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(path, f"it is not JSON ({error})") from error
    if isinstance(data, dict):
        inner = next((data[name] for name in CONTAINERS if isinstance(data.get(name), list)), None)
        if inner is not None:
            data = inner
        elif data and all(isinstance(value, dict) for value in data.values()):
            data = [{"index": name} | value for name, value in data.items()]
    if not isinstance(data, list) or not data:
        raise TaskError(path, f"it holds no list of questions (looked for one, and for {', '.join(CONTAINERS)})")
    return data
