"""Hashes that say whether a task or a model is still the one a result was made with."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BLOCK = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def files_sha256(paths: Sequence[Path]) -> str:
    """SHA-256 of one file, or of the hashes of several, in order."""
    if len(paths) == 1:
        return file_sha256(paths[0])
    return hashlib.sha256("".join(map(file_sha256, paths)).encode()).hexdigest()


def model_sha256(path: Path) -> str:
    """SHA-256 that names a model: of ``bundle.json`` (which holds its parts' hashes), a file, or a whole directory."""
    if path.is_file():
        return file_sha256(path)
    manifest = path / "bundle.json"
    if manifest.exists():
        return file_sha256(manifest)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path)}\n{file_sha256(file)}\n".encode())
    return digest.hexdigest()
