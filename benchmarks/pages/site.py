"""Hooks of the documentation site: pages that lie beside docs/ are shown in it, and links to them lead there.

Links in docs/ are written as a reader of the repository follows them (``../models.md``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

BESIDE = ("models.md", "CHANGELOG.md", "CONTRIBUTING.md", "starter/README.md")
"""Pages outside docs/ that belong to the site."""
PICTURES = ("benchmarks/results/scaling.svg", "benchmarks/results/auto_quant.svg")
_ROLE = re.compile(r":(?:class|func|meth|mod|attr):(?=<code>)")
"""What docstrings write before a name; the site shows the name alone."""
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)(?P<target>[^)\s]+)\)")


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the pages and pictures that lie beside docs/."""
    from mkdocs.structure.files import File

    for name in (*BESIDE, *PICTURES):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links from the repository's folders to the site's."""
    inside = page.file.src_uri not in BESIDE

    def moved(link: re.Match[str]) -> str:
        target = link["target"]
        return f"]({target.removeprefix('../') if inside else target.replace('docs/', '', 1)})"

    return _LINK.sub(moved, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Names in docstrings without their roles."""
    return _ROLE.sub("", html)
