"""Places in a Markdown page that a generator fills.

A number in a sentence stands between ``<!--n NAME-->`` and ``<!--/n-->``; a table or list between lines
``<!--block NAME-->`` and ``<!--/block-->``. Readers of the page do not see the marks.
"""

from __future__ import annotations

import re
from collections.abc import Callable

NUMBER = re.compile(r"<!--n (?P<name>[^>]*?)-->(?P<text>.*?)<!--/n-->", re.DOTALL)
BLOCK = re.compile(r"<!--block (?P<name>[^>]*?)-->\n(?P<text>.*?)<!--/block-->", re.DOTALL)
_LEFT = re.compile(r"<!--/?(?:n|block)\b")
_LINE_START = re.compile(r"^ {0,3}<!--n ", re.MULTILINE)


class MarkError(Exception):
    """A page has a mark that cannot be filled."""


def fill(page: str, number: Callable[[str], str], block: Callable[[str], str]) -> str:
    """The page with every mark filled anew.

    Args:
        page: Markdown.
        number: The text of a number by its name.
        block: The lines of a block by its name.

    Raises:
        MarkError: A mark is not closed, or a number begins a line, where Markdown would end the paragraph.
    """
    if (start := _LINE_START.search(page)) is not None:
        raise MarkError(f"a number begins a line: {page[start.start() : start.start() + 60]!r}")
    filled = NUMBER.sub(lambda mark: f"<!--n {mark['name']}-->{number(mark['name'])}<!--/n-->", page)
    filled = BLOCK.sub(
        lambda mark: f"<!--block {mark['name']}-->\n\n{block(mark['name']).strip()}\n\n<!--/block-->", filled
    )
    if (left := _LEFT.search(without_marks(filled))) is not None:
        raise MarkError(f"a mark is not closed: {without_marks(filled)[left.start() : left.start() + 60]!r}")
    return filled


def without_marks(page: str) -> str:
    """The page without its marks and what stands in them."""
    return BLOCK.sub("", NUMBER.sub("", page))
