"""Visual embeddings on disk: one checked file an entry, bounded in bytes, safe with several processes.

A file is written beside its place and renamed into it, so a reader sees the whole of it or nothing. Every read checks
the header and the SHA-256 of the values. A file that is short, damaged or not ours under one of our names is removed;
files with other names are left alone. Whatever goes wrong costs time, never an answer.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import struct
import time
from pathlib import Path

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm.errors import SettingError
from edge_mllm.whole_file import write_whole

_log = logging.getLogger(__name__)

_HEADER = struct.Struct("<8s32sII32s")
"""Magic, key, rows, columns, SHA-256 of the values, which follow as little-endian float32."""
_MAGIC = b"EDGEVIS1"
_NAME = re.compile(r"vision-[0-9a-f]{64}\.emb")
_TEMPORARY = ".vision-"
_STALE_SECONDS = 3600.0
DEFAULT_BYTES = 512 << 20


class EmbeddingStore:
    """A directory of embeddings.

    Args:
        directory: Made when absent.
        max_bytes: Of all entries together; the ones not used for longest go first.

    Raises:
        SettingError: ``max_bytes`` is negative, or the directory cannot be made or written to.
    """

    def __init__(self, directory: Path, *, max_bytes: int = DEFAULT_BYTES) -> None:
        if max_bytes < 0:
            raise SettingError(f"the cache's size is {max_bytes} bytes; it must not be negative")
        self.directory, self.max_bytes = directory, max_bytes
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(f"cannot use the cache directory '{directory}': {error.strerror}") from error
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise SettingError(f"cannot use the cache directory '{directory}': it cannot be read and written")
        self._warned = False

    def get(self, key: bytes, shape: tuple[int, int]) -> FloatArray | None:
        """The embeddings float32 [rows, columns] of a key of 32 bytes, or None."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("read", error)
            return None
        values = _parse(data, key, shape)
        if values is None:
            _log.warning("removed a damaged cache file: %s", path)
            _remove(path)
            return None
        try:
            os.utime(path)  # the order in which entries are given up
        except OSError:
            _log.debug("cannot touch %s", path)
        return values

    def put(self, key: bytes, values: FloatArray) -> None:
        """Keep embeddings float32 [rows, columns]; a failure is a warning in the log."""
        if _HEADER.size + values.nbytes > self.max_bytes:
            return
        little = np.ascontiguousarray(values, "<f4")
        digest = hashlib.sha256(little.data).digest()
        header = _HEADER.pack(_MAGIC, key, *values.shape, digest)
        try:
            self._make_room(_HEADER.size + values.nbytes)
            self._write(self._path(key), header, little)
        except OSError as error:
            self._warn("write", error)

    def _write(self, path: Path, header: bytes, values: FloatArray) -> None:
        write_whole(path, [header, values.data], prefix=_TEMPORARY)

    def _make_room(self, needed: int) -> None:
        """Remove the entries not used for longest, and what killed processes left behind."""
        entries = []
        for file in os.scandir(self.directory):
            try:
                status = file.stat()
            except OSError:  # removed by another process
                continue
            if _NAME.fullmatch(file.name):
                entries.append((status.st_mtime_ns, status.st_size, Path(file.path)))
            elif file.name.startswith(_TEMPORARY) and time.time() - status.st_mtime > _STALE_SECONDS:
                _remove(Path(file.path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total + needed <= self.max_bytes:
                return
            _remove(path)
            total -= size

    def _path(self, key: bytes) -> Path:
        return self.directory / f"vision-{key.hex()}.emb"

    def _warn(self, what: str, error: OSError) -> None:
        """Once: a full disk would otherwise fill the log as well."""
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        _log.log(level, "cannot %s the embedding cache in %s: %s", what, self.directory, error.strerror or error)


def _parse(data: bytes, key: bytes, shape: tuple[int, int]) -> FloatArray | None:
    """The values of a file, or None where anything in it is not as it was written."""
    if len(data) != _HEADER.size + 4 * shape[0] * shape[1]:
        return None
    magic, found, rows, columns, digest = _HEADER.unpack_from(data)
    body = memoryview(data)[_HEADER.size :]
    if magic != _MAGIC or found != key or (rows, columns) != shape or hashlib.sha256(body).digest() != digest:
        return None
    values = np.frombuffer(body, "<f4").reshape(shape).astype(np.float32, copy=False)
    return values if np.isfinite(values).all() else None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.debug("cannot remove %s: %s", path, error.strerror)
