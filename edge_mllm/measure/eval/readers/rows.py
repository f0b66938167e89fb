"""A row as every reader hands it on: plain values, and pictures that were found inside the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edge_mllm.measure.eval.pictures import Picture
    from edge_mllm.measure.eval.scoring.objects import ObjectWords


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a task file."""

    number: int
    """Counted from 1 without the header; names a row that has no index."""
    values: Mapping[str, Any]
    pictures: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)
    """Pictures held in the file itself, by column."""
    same_picture: str = ""
    """Equal for rows that share a picture; empty where the reader cannot tell."""
    objects: ObjectWords | None = None
    """What a description of the row's picture is held against."""
    problem: str = ""
    """Why the reader could not make sense of the row."""


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """All rows of a task, with where to look for picture files."""

    name: str
    root: Path
    sha256: str
    columns: frozenset[str]
    rows: tuple[Row, ...]
