"""What a checkpoint's model card says of it: its licence (else what its LICENSE file is) and its base model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_OPENINGS = (
    ("apache license", "apache-2.0"),
    ("mit license", "mit"),
    ("permission is hereby granted, free of charge", "mit"),
    ("gemma terms of use", "gemma"),
    ("gnu affero general public license", "agpl-3.0"),
    ("gnu general public license", "gpl-3.0"),
    ("attribution-noncommercial 4.0", "cc-by-nc-4.0"),
    ("attribution 4.0", "cc-by-4.0"),
)
"""Words near the start of a licence text -> the hub's id for it."""


def read_licence(directory: Path) -> str:
    """Return the licence id of a checkpoint directory, or "unknown".

    The front matter of README.md is read first (``license``; ``license_name`` where that says "other"), then a LICENSE
    file.
    """
    return _from_card(directory / "README.md") or _from_text(directory) or UNKNOWN


def card_base(directory: Path) -> str | None:
    """The hub id of the one model that this one was made of (``base_model`` of the card), or None.

    No other field says it: ``_name_or_path`` and its like hold whatever folder somebody loaded the model from.
    """
    found = _card_fields(directory / "README.md").get("base_model")
    name = found[0] if isinstance(found, list) and len(found) == 1 else found
    return name if isinstance(name, str) and _HUB_ID.fullmatch(name) else None


def _card_fields(card: Path) -> dict[str, Any]:
    """The front matter of a model card; empty where there is none that can be read."""
    if not card.is_file():
        return {}
    from huggingface_hub import metadata_load
    from yaml import YAMLError  # type: ignore[import-untyped]  # comes with huggingface_hub

    try:
        return dict(metadata_load(card) or {})
    except (ValueError, YAMLError):  # a damaged card is no reason to refuse the weights
        return {}


def _from_card(card: Path) -> str | None:
    fields = _card_fields(card)
    found = fields.get("license")
    if found == "other":
        found = fields.get("license_name") or found
    if isinstance(found, list):
        found = ", ".join(str(name) for name in found)
    return str(found) if found else None


def _from_text(directory: Path) -> str | None:
    for file in sorted(directory.glob("LICEN[SC]E*")):
        start = " ".join(file.read_text(encoding="utf-8", errors="replace")[:2000].lower().split())
        for words, name in _OPENINGS:
            if words in start:
                return name
        return f"see {file.name}"
    return None
