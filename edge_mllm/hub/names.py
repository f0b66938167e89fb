"""What a user may write for a model: a path, a name of the hub, a short name of the catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_mllm.hub.catalogue import Entry, find_entry

_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_PREFIX = "hf:"


@dataclass(frozen=True)
class HubName:
    """A repository that was named."""

    source: str
    """As it was written."""
    repos: tuple[str, ...]
    """``org/name``; several where the catalogue knows several, the first that can be run here is taken."""
    revision: str | None
    entry: Entry | None = None
    """The catalogue's."""


def split_id(text: str) -> tuple[str, str | None] | None:
    """Repository and revision of ``org/name`` or ``org/name@revision``; None for a text of another form."""
    found = _ID.fullmatch(text)
    return None if found is None or text.startswith((".", "~")) else (found["repo"], found["revision"])


def read_name(text: str | Path) -> HubName | None:
    """The repository that a text names; None for what is a path. What exists on disk is a path.

    Args:
        text: ``org/name``, ``org/name@revision``, ``hf:org/name``, or a short name of the catalogue.
    """
    written = str(text)
    plain = written.removeprefix(_PREFIX)
    if plain == written and Path(written).expanduser().exists():
        return None
    found = split_id(plain)
    if found is not None and not plain.endswith((".gguf", ".edge")):
        return HubName(written, (found[0],), found[1])
    entry = find_entry(plain)
    return None if entry is None else HubName(written, entry.repos, None, entry)
