"""A file that appears whole or not at all: written beside its place, then renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
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
    with _sibling(path, blocks, prefix) as written:
        written.replace(path)


def write_first(path: Path, blocks: Iterable[Any]) -> bool:
    """Write a file unless there is one: of several processes that do so at once, one is told that it did.

    On file systems without hard links the last one's stands, and each is told so.

    Args:
        path: Where it appears; the folder is there.
        blocks: Bytes or contiguous arrays, one after the other.

    Raises:
        OSError: As :func:`write_whole`.
    """
    with _sibling(path, blocks, None) as written:
        try:
            os.link(written, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links here
            written.replace(path)
    return True


@contextlib.contextmanager
def _sibling(path: Path, blocks: Iterable[Any], prefix: str | None) -> Iterator[Path]:
    """A temporary file beside a place, written; gone afterwards where it was not renamed."""
    handle, name = tempfile.mkstemp(prefix=prefix or f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            for block in blocks:
                stream.write(block)
        yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()
