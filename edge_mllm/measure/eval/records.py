"""The result file: one header line that says what was run, one line per question, flushed as they come."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from edge_mllm.errors import ResultError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1
RESULTS = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class Header:
    """Everything that decides an answer; a run is resumed only when all of it is the same."""

    task: str
    task_sha256: str
    layout: str
    questions: int
    model: str
    model_sha256: str
    engine: str
    scorer: str
    """``auto`` when rows choose for themselves."""
    max_new_tokens: int
    suffix: str = ""
    limit: int | None = None
    seed: int = 0
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Record:
    """One question's result."""

    index: str
    scorer: str = ""
    """Empty for a row that could not be asked."""
    category: str = ""
    l2_category: str = ""
    group: str = ""
    answers: tuple[str, ...] = ()
    reply: str = ""
    prediction: str = ""
    score: float | None = None
    """0 to 1; None: the row was broken and does not count."""
    error: str = ""
    """Why the row was broken (score None) or what the model refused (score 0)."""
    timings: dict[str, float | None] = field(default_factory=dict)
    usage: dict[str, int | None] = field(default_factory=dict)
    """As in :class:`edge_mllm.measure.eval.answerer.Reply`."""
    logprobs: tuple[float, ...] = ()
    """Per option, where options were ranked."""
    mentions: dict[str, int] = field(default_factory=dict)
    """What a description names (:class:`edge_mllm.measure.eval.scoring.objects.Mentions`)."""


@dataclass(frozen=True)
class Results:
    """A whole result file."""

    header: Header
    records: tuple[Record, ...]


def read_results(path: Path) -> Results:
    """Read a result file; a last line cut short by an interruption is left out.

    Raises:
        ResultError: It is missing, is not a result file, or a line inside it is damaged.
    """
    results, _ = _read(path)
    return results


def open_results(path: Path, header: Header) -> tuple[TextIO, tuple[Record, ...]]:
    """Open a result file for appending, new or resumed; returns it with the records it already holds.

    Raises:
        ResultError: It was started with another task, model or setting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.stat().st_size == 0:
        file = path.open("w", encoding="utf-8")
        write_line(file, {"kind": "header"} | asdict(header))
        return file, ()
    results, good_bytes = _read(path)
    found, wanted = asdict(results.header), asdict(header)
    changed = [f"{name} was {found[name]!r}, is {wanted[name]!r}" for name in wanted if found[name] != wanted[name]]
    if changed:
        raise ResultError(path, f"it was started with something else ({'; '.join(changed)}); choose another `out`")
    with path.open("r+b") as cut:
        cut.truncate(good_bytes)
    return path.open("a", encoding="utf-8"), results.records


def write_record(file: TextIO, record: Record) -> None:
    """Append one record."""
    fields = {name: value for name, value in asdict(record).items() if value not in ("", (), {}) or name == "score"}
    write_line(file, {"kind": "record"} | fields)


def write_line(file: TextIO, values: dict[str, Any]) -> None:
    """Append one JSON object and flush it."""
    file.write(json.dumps(values, ensure_ascii=False) + "\n")
    file.flush()


def _read(path: Path) -> tuple[Results, int]:
    """Read a result file, with the number of bytes that are whole lines."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultError(path, error.strerror or "it cannot be read") from error
    good = data.rfind(b"\n") + 1
    lines = data[:good].decode("utf-8").split("\n")[:-1]
    try:
        entries = [json.loads(line) for line in lines]
        header = _header(entries[0])
        records = tuple(_record(entry) for entry in entries[1:])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ResultError(path, f"it is no result file of edge-mllm eval, or damaged ({error})") from error
    return Results(header, records), good


def _header(values: dict[str, Any]) -> Header:
    if values.pop("kind") != "header" or values.get("schema") != SCHEMA:
        raise ValueError(f"the first line is no header of schema {SCHEMA}")
    return Header(**values)


def _record(values: dict[str, Any]) -> Record:
    if values.pop("kind") != "record":
        raise ValueError("a line is no record")
    for name in ("answers", "logprobs"):
        values[name] = tuple(values.get(name, ()))
    return Record(**values)
