"""A file that appears whole or not at all: written beside its place, then renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, blocks: Iterable[Any], prefix: str | None = None) -> None:
    """Write a file, in place of an older one where there is one.

    Args:
        path: Where it appears; the folder is there.
        blocks: Bytes or contiguous arrays, one after the other.
        prefix: How the temporary sibling's name begins; None takes the file's own name behind a dot.

    Raises:
        OSError: The disk is full or the folder cannot be written to; the temporary sibling is gone then.
    """
    handle, name = tempfile.mkstemp(prefix=prefix or f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            for block in blocks:
                stream.write(block)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
