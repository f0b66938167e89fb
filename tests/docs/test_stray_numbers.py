"""A measured number in README or docs stands in a mark that a generator fills from a result file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.pages.marks import MarkError, fill, without_marks
from benchmarks.pages.numbers import ROOT, marked_pages

_UNIT = r"(?:%|per cent|ms|s|seconds?|min|minutes?|hours?|KB|MB|GB|KiB|MiB|GiB|tokens/s|tok/s|times|points|nats|Gop/s)"
_MEASURED = re.compile(rf"(?<![\w.,:/^-])\d[\d.,]*(?:\s*|-){_UNIT}(?![\w/])|(?<![\w.-])\d+\.\d+(?![\w.]|-bit)")
_CODE = re.compile(r"```.*?^```|`[^`\n]*`|\]\([^)]*\)|<!--.*?-->", re.DOTALL | re.MULTILINE)

ALLOWED = {
    "README.md": {"InternVL 2 to 3.5", "LLaVA 1.5 /", "Python 3.11 or"},
    "docs/boards.md": {"boards of 2 GB or less"},
    "docs/families.md": {"InternVL 2 to 3.5"},
    "docs/chat.md": {"Linux 6.1 and"},
    "docs/export.md": {"(95 % interval"},
    "docs/troubleshooting.md": {"from 0.3.36 on"},
    "quant/README.md": {"protobuf's 2 GB"},
    "docs/verify.md": {"above 0.99999 each", "(1e-6)", "than 0.001,", "(0.8)", "(0.5 nats)", "(0.98)"},
}
"""Versions, limits and levels, with a word on each side: nobody measured these."""


def _prose(page: Path) -> str:
    """The page without marks, code, links and what is allowed in it."""
    text = _CODE.sub(" ", without_marks(page.read_text(encoding="utf-8")))
    for allowed in ALLOWED.get(str(page.relative_to(ROOT)), ()):
        assert allowed in text, f"{page.name} no longer says '{allowed}'"
        text = text.replace(allowed, " ")
    return text


@pytest.mark.parametrize("page", marked_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_measured_number_is_typed_by_hand(page: Path) -> None:
    stray = [found[0] for found in _MEASURED.finditer(_prose(page))]
    assert not stray, f"{page.relative_to(ROOT)}: {stray}; name them in benchmarks/pages/figures.py"


@pytest.mark.parametrize("text", ["takes 51 s here", "12.5 tokens/s", "73 % of", "0.32 of the time", "2.9 times"])
def test_measured_numbers_are_seen(text: str) -> None:
    assert _MEASURED.search(text)


@pytest.mark.parametrize("text", ["Qwen2.5-VL", "in 4 bits", "SmolVLM-500M", "step 7", "picture of 1024x768"])
def test_names_are_not_numbers(text: str) -> None:
    assert not _MEASURED.search(text)


def test_marks_are_filled() -> None:
    page = "It takes <!--n a-->0<!--/n--> s.\n\n<!--block b c-->\nold\n<!--/block-->\n"
    filled = fill(page, lambda name: name.upper(), lambda name: f"| {name} |")
    assert filled == "It takes <!--n a-->A<!--/n--> s.\n\n<!--block b c-->\n\n| b c |\n\n<!--/block-->\n"
    assert fill(filled, lambda name: name.upper(), lambda name: f"| {name} |") == filled


@pytest.mark.parametrize("page", ["x <!--n a-->0 s\n", "x <!--block a-->\n", "<!--n a-->0<!--/n--> begins a line\n"])
def test_bad_marks_are_errors(page: str) -> None:
    with pytest.raises(MarkError):
        fill(page, str, str)
