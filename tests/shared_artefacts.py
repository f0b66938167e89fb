"""What the workers of one run make once and only read: checkpoints, bundles, a service's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def shared_folder(factory: pytest.TempPathFactory, worker: str) -> Path:
    """The folder of all workers of a run."""
    return factory.getbasetemp() if worker == "master" else factory.getbasetemp().parent


def made_once(factory: pytest.TempPathFactory, worker: str, name: str, make: Callable[[Path], object]) -> Path:
    """A file or folder that the workers of one run share; the first that needs it makes it, and nobody writes to it."""
    base = shared_folder(factory, worker)
    out, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            make(out)
            done.touch()
    return out
