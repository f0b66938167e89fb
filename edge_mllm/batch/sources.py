"""Where rows come from: pictures in a folder or by a pattern, lines of JSON, a parquet file."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_mllm.batch.rows import Defaults, Row, label_of, read_lines, row_of
from edge_mllm.errors import ExtraMissingError, SettingError, TaskError
from edge_mllm.measure.eval.pictures import (
    ColumnPicture,
    FilePicture,
    HeldPicture,
    InlinePicture,
    Picture,
    image_cells,
)
from edge_mllm.measure.eval.readers.json_files import PICTURE_SUFFIXES
from edge_mllm.measure.eval.readers.parquet import holds_images

SUFFIXES = frozenset((*PICTURE_SUFFIXES, ".gif", ".tif", ".tiff"))
"""Of files that count as pictures in a folder."""
LISTS = (".jsonl", ".ndjson", ".parquet")
_AT_ONCE = 32
"""Rows of a parquet file that are read together, pictures and all."""


@dataclass(frozen=True)
class Source:
    """Rows to be answered."""

    name: str
    count: int
    """Of rows, broken ones included."""
    rows: Callable[[], Iterator[Row]]
    """Reads them from the beginning; the same names and keys every time."""


def open_source(words: Sequence[str], defaults: Defaults, *, by_place: bool = False) -> Source:
    """Find the rows.

    Args:
        words: One file of rows; or folders, patterns and pictures.
        defaults: What rows do not say.
        by_place: Rows hold the places of pictures in a parquet file instead of the pictures, for workers that read them
            there.

    Raises:
        TaskError: There is nothing, or it is of another kind.
        SettingError: Pictures, and no prompt.
        ExtraMissingError: A parquet file, and pyarrow is not installed.
    """
    lists = [word for word in words if word.lower().endswith(LISTS)]
    if lists and len(words) > 1:
        raise TaskError(lists[0], "a file of rows stands alone")
    if not lists:
        return _pictures(words, defaults)
    path = Path(lists[0])
    if not path.is_file():
        raise TaskError(path, "no such file")
    read = _parquet(path, by_place) if path.suffix.lower() == ".parquet" else _json_lines(path)
    return replace(read, rows=lambda: named(map(defaults.fill, read.rows())))


def named(rows: Iterator[Row]) -> Iterator[Row]:
    """Rows that all have a name, which no two share.

    A row without an id is called by what it asks, and one that cannot be read by its number. The second ``a`` is
    ``a#2``.
    """
    seen: dict[str, int] = {}
    for row in rows:
        name = row.name or (f"row-{row.number}" if row.problem else row.key)
        count = seen[name] = seen.get(name, 0) + 1
        yield replace(row, name=name if count == 1 else f"{name}#{count}")


def _pictures(words: Sequence[str], defaults: Defaults) -> Source:
    if defaults.prompt is None:
        raise SettingError("pictures alone ask nothing; give a `prompt`")
    found = [each for word in words for each in _files(word)]

    def rows() -> Iterator[Row]:
        for number, (label, path) in enumerate(found, 1):
            yield defaults.fill(Row(number=number, name=label, pictures=(FilePicture(path),), labels=(label,)))

    return Source(" ".join(words), len(found), lambda: named(rows()))


def _files(word: str) -> list[tuple[str, Path]]:
    """Labels and pictures that a folder, a pattern or a path stands for, in order; a folder's are called from it on."""
    path = Path(word)
    if path.is_dir():
        inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
        if not inside:
            raise TaskError(word, "there is no picture in it")
        return [(each.relative_to(path).as_posix(), each) for each in inside]
    found = [path] if path.is_file() else map(Path, sorted(glob.glob(word, recursive=True)))  # noqa: PTH207
    files = [(str(each), each) for each in found if each.is_file()]
    if not files:
        raise TaskError(word, "no such file, folder or pattern of files")
    return files


def _json_lines(path: Path) -> Source:
    def rows() -> Iterator[Row]:
        with path.open("rb") as lines:
            yield from read_lines(lines, path.parent)

    with path.open("rb") as lines:
        count = sum(1 for line in lines if line.strip())
    if not count:
        raise TaskError(path, "it is empty")
    return Source(path.name, count, rows)


def _parquet(path: Path, by_place: bool) -> Source:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ExtraMissingError("eval", "pyarrow") from error
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise TaskError(path, f"it is no parquet file ({error})") from error

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for group in range(file.num_row_groups):
                for place, values, cells in _records(file, group):
                    number += 1
                    yield row_of(number, values, path.parent, _held(path, cells, (group, place), by_place))
        except (pa.ArrowException, OSError) as error:
            raise TaskError(path, f"its rows cannot be read ({error})") from error

    return Source(path.name, int(file.metadata.num_rows), rows)


def _records(file: Any, group: int) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Place in its group, fields, and cells of pictures of every row; few rows are in memory at a time."""
    images = [field.name for field in file.schema_arrow if holds_images(field.name, field.type)]
    place = 0
    for batch in file.iter_batches(batch_size=_AT_ONCE, row_groups=[group]):
        for values in batch.to_pylist():
            cells = {name: values.pop(name) for name in images}
            for name, cell in cells.items():
                if not image_cells(cell) and isinstance(cell, dict) and cell.get("path"):
                    values[name] = cell["path"]  # an image struct without bytes
            yield place, values, cells
            place += 1


def _held(path: Path, cells: dict[str, Any], where: tuple[int, int], by_place: bool) -> list[tuple[str, Picture]]:
    """Labels and pictures of a row that lie in the file itself."""
    found: list[tuple[str, Picture]] = []
    for column, cell in cells.items():
        for position, data in enumerate(image_cells(cell)):
            stored = ColumnPicture(path, *where, column, position)
            encoded = data if isinstance(data, bytes) else data.encode()
            held = HeldPicture(encoded, stored.name) if isinstance(data, bytes) else InlinePicture(data, stored.name)
            found.append((label_of(encoded), stored if by_place else held))
    return found
