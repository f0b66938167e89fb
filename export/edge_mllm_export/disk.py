"""Room on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_mllm_export.errors import OutputError


def require_space(directory: Path, needed: int) -> None:
    """Refuse to start when the disk cannot hold what will be written.

    Raises:
        OutputError: With both sizes.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OutputError(
            f"not enough disk space in '{directory}': about {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
        )
