"""Hashes that say whether a task or a model is still the one a result was made with."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from edge_mllm.bundle.checked import sha256_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def files_sha256(paths: Sequence[Path]) -> str:
    """SHA-256 of one file, or of the hashes of several, in order."""
    if len(paths) == 1:
        return sha256_of(paths[0])
    return hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()


def model_sha256(path: Path) -> str:
    """SHA-256 that names a model: of ``bundle.json`` (which holds its parts' hashes), a file, or a whole directory."""
    if path.is_file():
        return sha256_of(path)
    manifest = path / "bundle.json"
    if manifest.exists():
        return sha256_of(manifest)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path)}\n{sha256_of(file)}\n".encode())
    return digest.hexdigest()
