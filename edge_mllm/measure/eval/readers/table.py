"""TSV and CSV with pictures as base64 text, as VLMEvalKit publishes them, or as paths.

Layout: https://github.com/open-compass/VLMEvalKit/blob/main/docs/en/Development.md. A value of at most 64 characters in
the ``image`` column is the index of another row that holds the picture.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_mllm.bundle.checked import sha256_of
from edge_mllm.errors import TaskError
from edge_mllm.measure.eval.pictures import Lines, TablePicture, base64_list, wide_fields
from edge_mllm.measure.eval.readers.rows import Row, RowFile

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mllm.measure.eval.pictures import Picture

INLINE = ("image", "bytes")
"""Columns that may hold base64."""
REFERENCE_LENGTH = 64
"""Up to here a value in an inline column is the index of another row, or a path."""


def read_table(path: Path) -> RowFile:
    """Read a .tsv or .csv task file; pictures stay in the file until they are asked for.

    Raises:
        TaskError: The file has no header.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows: list[Row] = []
    with path.open("rb") as file, wide_fields():
        lines = Lines(file)
        reader = csv.reader(lines, delimiter=delimiter)
        header = next(reader, None)
        if not header:
            raise TaskError(path, "it is empty; the first line must name the columns")
        while True:
            offset = lines.offset
            try:
                record = next(reader)
            except StopIteration:
                break
            if record:
                rows.append(_row(path, header, record, (len(rows) + 1, offset, delimiter)))
    return RowFile(
        name=path.stem,
        root=path.parent,
        sha256=sha256_of(path),
        columns=frozenset(header),
        rows=tuple(_resolve_references(rows)),
    )


def _row(path: Path, header: list[str], record: list[str], place: tuple[int, int, str]) -> Row:
    """Make one row; ``place`` is its number, byte offset and delimiter."""
    number, offset, delimiter = place
    values: dict[str, str] = {}
    pictures: dict[str, tuple[Picture, ...]] = {}
    same = ""
    for column, (name, value) in enumerate(zip(header, record, strict=False)):
        if name in INLINE and len(value) > REFERENCE_LENGTH:
            count = len(base64_list(value))
            pictures[name] = tuple(TablePicture(path, offset, column, delimiter, i) for i in range(count))
            same = hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        else:
            values[name] = value
    problem = ""
    if len(record) != len(header):
        problem = f"has {len(record)} fields, the header has {len(header)}"
    elif any("\udc80" <= character <= "\udcff" for value in values.values() for character in value):
        problem = "is not UTF-8"
        values = {name: value.encode("utf-8", "replace").decode() for name, value in values.items()}
    return Row(number=number, values=values, pictures=pictures, same_picture=same, problem=problem)


def _resolve_references(rows: list[Row]) -> list[Row]:
    """Give rows whose picture is another row's that row's picture."""
    by_index = {str(row.values.get("index", "")): row for row in rows if row.pictures}
    resolved = []
    for row in rows:
        reference = row.values.get("image", "")
        if not row.pictures and reference and reference in by_index:
            owner = by_index[reference]
            values = {name: value for name, value in row.values.items() if name != "image"}
            row = replace(row, values=values, pictures=owner.pictures, same_picture=owner.same_picture)
        resolved.append(row)
    return resolved
