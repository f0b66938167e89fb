"""Pictures of a task, read when they are asked for: a set of 8k photographs does not fit a small machine's memory."""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_mllm.errors import ImageError
from edge_mllm.picture.image import load_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from PIL import Image

MAX_FIELD = 2**31 - 1
"""Largest TSV field in characters; the csv module's own limit is 131,072, one picture of 100 kB."""


class Picture(Protocol):
    """Something that can be turned into the bytes of a picture file."""

    @property
    def name(self) -> str:
        """How to call it in a message."""
        ...

    def read(self) -> bytes:
        """Return the encoded picture.

        Raises:
            ImageError: It is not there or not what it claims to be.
        """
        ...


@dataclass(frozen=True)
class FilePicture:
    """A picture in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return f"'{self.path}'"

    def read(self) -> bytes:
        """Read the file."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ImageError(self.name, error.strerror or "it cannot be read") from error


@dataclass(frozen=True)
class HeldPicture:
    """Bytes that are in memory already."""

    data: bytes
    name: str

    def read(self) -> bytes:
        """Return them."""
        return self.data


@dataclass(frozen=True)
class InlinePicture:
    """A ``data:`` URL."""

    url: str
    name: str = "data URL"

    def read(self) -> bytes:
        """Decode it."""
        return decode_base64(self.url, self.name)


@dataclass(frozen=True)
class TablePicture:
    """Base64 text in a field of a TSV or CSV file, found again by the byte offset of its record."""

    path: Path
    offset: int
    column: int
    delimiter: str
    position: int = 0
    """Which one, where the field holds a list of pictures."""

    @property
    def name(self) -> str:
        """File and byte offset."""
        return f"in '{self.path.name}' at byte {self.offset}"

    def read(self) -> bytes:
        """Read the record again and decode its field."""
        try:
            with self.path.open("rb") as file, wide_fields():
                file.seek(self.offset)
                field = next(csv.reader(Lines(file), delimiter=self.delimiter))[self.column]
            text = base64_list(field)[self.position]
        except (OSError, csv.Error, StopIteration, IndexError) as error:
            raise ImageError(self.name, f"it is not there any more ({type(error).__name__})") from error
        return decode_base64(text, self.name)


@dataclass(frozen=True)
class ColumnPicture:
    """Bytes in an image column of a parquet file, read one row group at a time."""

    path: Path
    row_group: int
    row: int
    column: str
    position: int = 0

    @property
    def name(self) -> str:
        """File, row group and row."""
        return f"in '{self.path.name}', row group {self.row_group}, row {self.row}, column {self.column}"

    def read(self) -> bytes:
        """Return the bytes of the cell."""
        try:
            cell = image_cells(_row_group(str(self.path), self.row_group, self.column)[self.row])[self.position]
        except (OSError, ValueError, LookupError) as error:
            raise ImageError(self.name, f"it is not there any more ({type(error).__name__})") from error
        if not isinstance(cell, bytes):
            return decode_base64(cell, self.name)
        return cell


@functools.lru_cache(maxsize=2)
def _row_group(path: str, row_group: int, column: str) -> list[Any]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read_row_group(row_group, columns=[column])
    cells: list[Any] = table.column(column).to_pylist()
    return cells


def image_cells(cell: Any) -> list[bytes | str]:
    """Flatten a parquet image cell: a ``{bytes, path}`` struct, raw bytes, base64 text, or a list of these."""
    if cell is None:
        return []
    if isinstance(cell, list):
        return [part for entry in cell for part in image_cells(entry)]
    if isinstance(cell, dict):
        return image_cells(cell.get("bytes"))
    return [cell]


class Lines:
    """Decoded lines of a binary file, with the byte offset at which the next one starts."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset = file.tell()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline()
        if not raw:
            raise StopIteration
        start, self.offset = self.offset, self.offset + len(raw)
        # Broken UTF-8 stays recognisable in its own row instead of ending the whole file.
        return raw.decode("utf-8-sig" if start == 0 else "utf-8", errors="surrogateescape")


class wide_fields:  # noqa: N801  (reads as a verb in a with statement)
    """Lift the csv module's global field limit, and put it back."""

    def __enter__(self) -> None:
        self._before = csv.field_size_limit(MAX_FIELD)

    def __exit__(self, *_: object) -> None:
        csv.field_size_limit(self._before)


def base64_list(field: str) -> list[str]:
    """Split a field that may hold one base64 text or the printed form of a list of them."""
    if not field.startswith("["):
        return [field]
    try:
        entries = ast.literal_eval(field)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [field]
    return [str(entry) for entry in entries]


def decode_base64(text: str, name: str) -> bytes:
    """Decode base64, with or without a ``data:`` prefix.

    Raises:
        ImageError: The text is not base64.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(name, f"bad base64 ({error})") from error


def open_picture(picture: Picture) -> Image.Image:
    """Decode a picture to upright RGB by the rule of :mod:`edge_mllm.picture.image`, for every kind of answerer.

    Raises:
        ImageError: The bytes are missing or are no picture.
    """
    return load_image(picture.read(), picture.name)
