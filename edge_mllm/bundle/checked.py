"""SHA-256 of large files, remembered: one that has not changed since it was read is not read again.

A file counts as unchanged where its device, inode, size and both times are the same. Whoever writes into a file changes
the inode's time, which no program can set back. One that was touched a moment before it was read is not remembered:
another write within one step of the clock would go unnoticed (git calls such an entry racy).
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path

from edge_mllm.machine.folders import cache_folder, file_identity
from edge_mllm.whole_file import write_whole

_log = logging.getLogger(__name__)
REMEMBERED_FROM = 32 << 20
"""Bytes from which reading a file takes longer than a glance at what is remembered."""
_RACY_NS = 2_000_000_000
_BLOCK = 1 << 20


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; always read."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def remembered_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a large file that has not changed, what was found before.

    Raises:
        OSError: The file cannot be read.
    """
    stat = file.stat()
    if stat.st_size < REMEMBERED_FROM:
        return sha256_of(file)
    place, seen = _place(file), file_identity(stat)
    known = _read(place)
    if known is not None and known[0] == seen:
        return known[1]
    quiet = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _RACY_NS
    digest = sha256_of(file)
    if quiet and file_identity(file.stat()) == seen:
        _keep(place, seen, digest)
    return digest


def _place(file: Path) -> Path:
    name = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "checked" / f"{name[:32]}.json"


def _read(place: Path) -> tuple[list[int], str] | None:
    """What is remembered; what cannot be read is as good as nothing."""
    try:
        found = json.loads(place.read_text("utf-8"))
        identity, digest = found["identity"], found["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (identity, digest) if isinstance(identity, list) and isinstance(digest, str) else None


def _keep(place: Path, identity: list[int], digest: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, [json.dumps({"identity": identity, "sha256": digest}).encode()])
    except OSError as error:
        _log.debug("the SHA-256 of a file could not be remembered (%s); it will be read again", error)
