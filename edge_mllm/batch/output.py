"""The output: a line for every row, flushed as it comes, and what a run that was broken off goes on from.

JSON Lines are the output itself. A parquet file is written whole at the end, from the lines that were kept beside it
until then (``OUT.lines``). ``OUT.run.json`` says what the lines were made with; other settings are refused, because one
file would hold answers of two kinds.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from edge_mllm.errors import ExtraMissingError, ResultError, SettingError
from edge_mllm.whole_file import write_whole

JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
_AT_ONCE = 4096
"""Records that a parquet file is made of at a time."""


class Output:
    """An output that is being written by this process alone.

    Args:
        path: Ends in .jsonl, .ndjson or .parquet.
        settings: Everything that decides an answer, as plain JSON values.

    Raises:
        SettingError: ``path`` ends otherwise, or there is no folder for it.
        ResultError: It holds answers that were made with other settings, or another process writes it.
        ExtraMissingError: Parquet, and pyarrow is not installed.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        check_place(path)
        self.path, self._settings = path, json.loads(json.dumps(settings))
        self._lines = path.with_name(f"{path.name}.lines") if path.suffix == PARQUET else path
        self._about = path.with_name(f"{path.name}.run.json")
        self.done: dict[str, str] = {}
        """Names of the rows that have a line, and their keys."""
        self.broken = 0
        """Lines that say what is wrong with a row."""
        self.finished = path.suffix == PARQUET and path.exists() and not self._lines.exists()
        """Whether it is a parquet file that was written whole, to which nothing can be added."""
        if self.finished:
            self._check_settings()
            self._read_finished()
        else:
            self._file = self._open()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one row's record."""
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        self.broken += "error" in record

    def finish(self) -> None:
        """All rows have a line: write what is written at the end."""
        if self.finished or self.path.suffix != PARQUET:
            return
        self._file.flush()
        write_whole(self.path, [_as_parquet(self._lines)])
        self._lines.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.finished:
            self._file.close()

    def _open(self) -> IO[bytes]:
        """Open the lines for appending, without a last one that was torn, and read the names that are there."""
        file = self._lines.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise ResultError(self.path, "another process writes it now") from error
        file.seek(0)
        whole = 0
        if file.seek(0, os.SEEK_END):
            self._check_settings()
            file.seek(0)
            whole = self._read(file)
        else:
            write_whole(self._about, [json.dumps(self._settings, indent=1).encode() + b"\n"])
        file.truncate(whole)
        return file

    def _read(self, file: IO[bytes]) -> int:
        """Note the rows that are there; return the bytes of whole lines."""
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
                self.done[record["id"]] = record["key"]
                self.broken += "error" in record
            except (ValueError, KeyError, TypeError) as error:
                raise ResultError(self._lines, f"a line of it is no answer of edge-mllm batch ({error})") from error
            whole += len(line)
        return whole

    def _read_finished(self) -> None:
        """Note the rows of a parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(self.path)
            names = [name for name in ("id", "key", "error") if name in file.schema_arrow.names]
            rows = file.read(columns=names).to_pylist()
            self.done = {row["id"]: row["key"] for row in rows}
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ResultError(self.path, f"it is no output of edge-mllm batch ({error})") from error
        self.broken = sum(row.get("error") is not None for row in rows)

    def _check_settings(self) -> None:
        """Refuse to go on with what was made otherwise."""
        try:
            found = json.loads(self._about.read_bytes())
        except (OSError, ValueError) as error:
            reason = f"there is something there, and no '{self._about.name}' that says how it was made"
            raise ResultError(self.path, f"{reason}; choose another `out`") from error
        names = dict.fromkeys((*found, *self._settings)) if isinstance(found, dict) else ()
        changed = [
            f"{name} was {json.dumps(found.get(name))}, is {json.dumps(self._settings.get(name))}"
            for name in names
            if found.get(name) != self._settings.get(name)
        ]
        if changed or not names:
            reason = f"it was begun with something else ({'; '.join(changed)})"
            raise ResultError(self.path, f"{reason}; choose another `out`")


def check_place(path: Path) -> None:
    """Say before a model is loaded that an output cannot be written.

    Raises:
        SettingError: ``path`` is no output, or there is no folder for it.
        ExtraMissingError: Parquet, and pyarrow is not installed.
    """
    if path.suffix not in (*JSON_LINES, PARQUET):
        raise SettingError(f"`out` is '{path}'; its name must end in .jsonl, .ndjson or .parquet")
    if not path.parent.is_dir():
        raise SettingError(f"there is no directory '{path.parent}' to write to")
    if path.suffix == PARQUET:
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ExtraMissingError("eval", "pyarrow") from error


def _as_parquet(lines: Path) -> Any:
    """A table of the records, as the bytes of a parquet file: a column a field, null where a record has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for records in _parts(lines) for record in records for name in record))
    schema = pa.unify_schemas([_table(records, names).schema for records in _parts(lines)])
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema) as writer:
        for records in _parts(lines):
            writer.write_table(_table(records, names).cast(schema))
    return sink.getvalue()


def _table(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Any:
    import pyarrow as pa

    return pa.table({name: [record.get(name) for record in records] for name in names})


def _parts(lines: Path) -> Iterator[list[dict[str, Any]]]:
    """Records, some at a time, with what is nested in them beside the rest: ``timings.ttft_s``."""
    with lines.open("rb") as file:
        while part := [_flat(json.loads(line)) for line in itertools.islice(file, _AT_ONCE)]:
            yield part


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= (
            {f"{name}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {name: value}
        )
    return found
