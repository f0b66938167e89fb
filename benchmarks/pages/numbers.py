"""Put every measured number and every table of options into the pages that people read, from the committed results.

``python -m benchmarks.pages.numbers`` writes models.md and fills the marks in README.md and docs/; with ``--check`` it
writes nothing and fails when a page is stale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.pages import models
from benchmarks.pages.blocks import block
from benchmarks.pages.figures import number
from benchmarks.pages.marks import fill

ROOT = Path(__file__).resolve().parents[2]


def marked_pages(root: Path = ROOT) -> list[Path]:
    """Pages whose numbers stand in marks."""
    return [
        root / "README.md",
        root / "CONTRIBUTING.md",
        root / "export" / "README.md",
        root / "quant" / "README.md",
        *_docs(root),
    ]


def _docs(root: Path) -> list[Path]:
    return sorted((root / "docs").glob("*.md"))


def fresh_pages() -> Iterator[tuple[Path, str]]:
    """Every page that holds measured numbers, and what it should say."""
    yield ROOT / "models.md", models.page()
    for page in marked_pages():
        yield page, fill(page.read_text(encoding="utf-8"), number, block)


def main() -> None:
    """Write the pages, or compare them with what is committed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is stale")
    check = parser.parse_args().check
    stale = []
    for page, text in fresh_pages():
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(page.relative_to(ROOT)))
        if not check:
            page.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"stale: {', '.join(stale)}; type: make numbers")


if __name__ == "__main__":
    main()
