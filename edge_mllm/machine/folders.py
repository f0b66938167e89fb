"""Where files of this package lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where results for this machine are kept: ``EDGE_MLLM_CACHE``, else the user's cache folder."""
    given = os.environ.get("EDGE_MLLM_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-mllm"


def file_identity(stat: os.stat_result) -> list[int]:
    """Device, inode, size and both times: the same while nobody writes into a file."""
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
