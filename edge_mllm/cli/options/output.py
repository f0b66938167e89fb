"""Options of what a command prints."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import typer

QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on standard error but errors.")]


@dataclass(frozen=True, kw_only=True)
class JsonOptions:
    """Output for programs; a group of options."""

    SECTIONS: ClassVar = {"Output": ("as_json", "json_indent")}

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, on one line.")] = False
    json_indent: Annotated[bool, typer.Option("--json-indent", help="The same on several lines, for people.")] = False

    @property
    def wanted(self) -> bool:
        """Whether standard output is to be JSON."""
        return self.as_json or self.json_indent

    def write(self, document: Any) -> None:
        """Write a JSON value to standard output, in the encoding that it has."""
        unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
        text = json.dumps(document, ensure_ascii=not unicode, indent=2 if self.json_indent else None)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
