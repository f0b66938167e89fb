"""Parquet as Hugging Face datasets write it: image columns are structs of ``bytes`` and ``path``, or lists of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from edge_mllm.bundle.checked import sha256_of
from edge_mllm.errors import ExtraMissingError, TaskError
from edge_mllm.measure.eval.pictures import ColumnPicture, image_cells
from edge_mllm.measure.eval.readers.rows import Row, RowFile

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mllm.measure.eval.pictures import Picture


def read_parquet(paths: list[Path], name: str) -> RowFile:
    """Read the rows of one data set kept in one or more parquet files.

    Raises:
        ExtraMissingError: pyarrow is not installed.
        TaskError: A file is no parquet file.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ExtraMissingError("eval", "pyarrow") from error
    rows: list[Row] = []
    columns: set[str] = set()
    digest = hashlib.sha256()
    for path in paths:
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise TaskError(path, f"it is no parquet file ({error})") from error
        digest.update(sha256_of(path).encode())
        columns |= set(file.schema_arrow.names)
        try:
            for group in range(file.num_row_groups):
                rows += _rows_of_group(path, file, group, len(rows))
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise TaskError(path, f"its rows cannot be read ({error})") from error
    return RowFile(
        name=name, root=paths[0].parent, sha256=digest.hexdigest(), columns=frozenset(columns), rows=tuple(rows)
    )


def _rows_of_group(path: Path, file: Any, group: int, before: int) -> list[Row]:
    """Read one row group, keeping only the places of its pictures."""
    schema = file.schema_arrow
    images = [field.name for field in schema if holds_images(field.name, field.type)]
    table = file.read_row_group(group)
    cells = {name: table.column(name).to_pylist() for name in images}
    records = table.drop_columns(images).to_pylist() or [{} for _ in range(table.num_rows)]
    rows = []
    for i, values in enumerate(records):
        pictures: dict[str, tuple[Picture, ...]] = {}
        digest = hashlib.blake2b(digest_size=8)
        for name in images:
            found = image_cells(cells[name][i])
            for data in found:
                digest.update(data if isinstance(data, bytes) else data.encode())
            if found:
                pictures[name] = tuple(ColumnPicture(path, group, i, name, k) for k in range(len(found)))
            elif (file_name := _path_of(cells[name][i])) is not None:
                values[name] = file_name
        same = digest.hexdigest() if pictures else ""
        rows.append(Row(number=before + i + 1, values=values, pictures=pictures, same_picture=same))
    return rows


def _path_of(cell: Any) -> str | None:
    """The ``path`` of an image struct that has no bytes."""
    return cell.get("path") if isinstance(cell, dict) else None


def holds_images(name: str, kind: Any) -> bool:
    """Whether a column of this name and arrow type holds pictures."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return holds_images(name, kind.value_type)
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    # Some sets keep base64 text in a string column of this name.
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or name == "bytes")
