"""Configuration files of checkpoints: JSON objects, read with messages that name the file, and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_mllm.bundle.pointers import is_pointer
from edge_mllm_export.errors import CheckpointError

_JSON_LIMIT = 1 << 26
"""Bytes; a configuration file above this is not read. The largest published tokenizer.json files have about 35 MB."""


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is missing, too large, or holds something else.
    """
    try:
        if file.stat().st_size > _JSON_LIMIT:
            raise CheckpointError(file, "", "is too large for a configuration file")
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(file, "", "is missing") from None
    except (ValueError, OSError, RecursionError) as error:
        if file.is_file() and is_pointer(file):
            raise CheckpointError(file, "", "is a Git LFS pointer; fetch the files with 'git lfs pull'") from error
        raise CheckpointError(file, "", f"is not JSON ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise CheckpointError(file, "", "is not a JSON object")
    return document


def write_json(file: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON object as transformers lays it out."""
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
