"""Git LFS pointers: what a clone has in place of large files where Git LFS is not set up."""

from __future__ import annotations

from pathlib import Path

_START = b"version https://git-lfs.github.com/spec/"
_LIMIT = 1024
"""Bytes; no pointer is as long."""


def is_pointer(file: Path) -> bool:
    """Whether a file is a pointer.

    Raises:
        OSError: It cannot be read.
    """
    if file.stat().st_size >= _LIMIT:
        return False
    with file.open("rb") as stream:
        return stream.read(len(_START)) == _START
