"""Tables for people: as wide as the terminal, and where that is narrow, lines that keep names and paths whole."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod

_GAP = 2
_NARROW = 20
"""Columns below which wrapped text is no longer read easily."""


def show_table(
    console: Console,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    wrap: Sequence[str] = (),
    title: str = "",
) -> None:
    """Print rows as a table, or one below the other where they do not fit.

    Args:
        console: Where to.
        header: Names of the columns.
        rows: As many texts each.
        right: Columns of numbers.
        wrap: Columns that may take several lines; they are wrapped between words.
        title: A line before it.
    """
    from rich.table import Table

    if title:
        console.print(title)
    columns = list(zip(header, *rows, strict=True))
    widths = [_width(cells, cells[0] in wrap) for cells in columns]
    if sum(widths) + _GAP * len(widths) > console.width:
        _print_blocks(console, header, rows)
        return
    table = Table(box=None, padding=(0, _GAP, 0, 0))
    for name, width in zip(header, widths, strict=True):
        justify: JustifyMethod = "right" if name in right else "left"
        table.add_column(name, justify=justify, no_wrap=name not in wrap, min_width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Print names and their values; long values continue below themselves, broken between words only."""
    _show_pairs(console, list(facts.items()))


def show_text(console: Console, text: str) -> None:
    """Print lines of text, broken between words only."""
    for line in text.splitlines():
        console.print(hanging("", line, console.width), soft_wrap=True)


def hanging(start: str, text: str, width: int) -> str:
    """Text after a start, its further lines below its first; broken between words only."""
    margin = len(start) if width - len(start) >= _NARROW else 4
    wrapped = textwrap.wrap(
        text, max(width - len(start), 1), break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    return start + f"\n{' ' * margin}".join(wrapped)


def _width(cells: Sequence[str], wraps: bool) -> int:
    if not wraps:
        return max(map(len, cells))
    return max(len(word) for cell in cells for word in (cell.split() or [""]))


def _print_blocks(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Each row as lines of its own, empty cells left out."""
    for row in rows:
        _show_pairs(console, [(name, cell) for name, cell in zip(header, row, strict=True) if cell])
        console.print()


def _show_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    margin = max((len(name) for name, _ in pairs), default=0) + _GAP
    for name, value in pairs:
        console.print(hanging(f"{name:{margin}}", value, console.width), soft_wrap=True)


def show_verification(console: Console, reference: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Print the comparison with the checkpoint."""
    header = ("part", "recipe", "agreement")
    show_table(console, header, rows, wrap=("agreement",), title=f"\nagainst {reference}")
