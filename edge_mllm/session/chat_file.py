"""A conversation in a file, with the decoder's cache, so that a restarted process goes on without prefill.

Layout: a line that says what it is, a line with the SHA-256 of everything after it, a line with the bytes of the
transcript and of the head, the transcript for people, the head in JSON, then arrays one after the other as the head
lists them. Nothing in it is executed, and the hash is checked before anything is used. The head names the bundle, and
the engine, its version and the settings that the cache's bits depend on: a file of another bundle is refused; where one
of the others differs the caller is told, who leaves the cache and keeps what was said.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.errors import ChatFileError
from edge_mllm.whole_file import write_whole

_MAGIC, _MAGIC_1 = b"edge-mllm chat 2\n", b"EDGECHT1"
"""The second of files that were written before they had a transcript."""
_START_1 = struct.Struct("<8s32sQ")
_MODEL = "bundle"
"""The part of a binding that pictures and words belong to as well."""
_TYPES = ("uint8", "float16", "float32", "int64")


@dataclass(frozen=True)
class ChatFile:
    """What a file holds."""

    binding: Mapping[str, str]
    """What the rest belongs to: bundle, engine, versions, settings."""
    head: Mapping[str, Any]
    """JSON values."""
    arrays: Mapping[str, npt.NDArray[Any]]
    transcript: str = ""
    """What was said, for people; nobody reads it back."""
    difference: str | None = None
    """Of a file that was read: why its cache does not belong to the model that reads it."""


def write_chat_file(path: Path, content: ChatFile) -> None:
    """Write a file; it appears whole or not at all.

    Raises:
        OSError: The disk is full or the place cannot be written.
    """
    parts = {name: np.ascontiguousarray(array) for name, array in content.arrays.items()}
    entries = [[name, part.dtype.name, list(part.shape)] for name, part in parts.items()]
    head = {"binding": dict(content.binding), "head": dict(content.head), "arrays": entries}
    text, told = json.dumps(head, ensure_ascii=False).encode(), content.transcript.encode()
    blocks: list[Any] = [
        f"{len(told)} {len(text)}\n".encode(),
        told,
        text,
        *(part.reshape(-1).view(np.uint8) for part in parts.values()),
    ]
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    write_whole(path, [_MAGIC + digest.hexdigest().encode() + b"\n", *blocks])


def read_chat_file(path: Path, binding: Mapping[str, str]) -> ChatFile:
    """Read a file.

    Args:
        path: The file.
        binding: What the model that reads it has.

    Raises:
        ChatFileError: There is no such file, it is damaged, or it belongs to another bundle.
    """
    head, body = _read_head(path)
    saved = dict(head["binding"])
    difference = _difference(saved, binding)
    if saved.get(_MODEL) != binding.get(_MODEL):
        raise ChatFileError(path, f"it was saved with {difference}")
    try:
        return ChatFile(saved, head["head"], _read_arrays(body, head["arrays"]), difference=difference)
    except (ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ChatFileError(path, f"it cannot be read ({error})") from error


def saved_binding(path: Path) -> Mapping[str, str]:
    """What the model that saved a file had; errors as :func:`read_chat_file`."""
    return dict(_read_head(path)[0]["binding"])


def _read_head(path: Path) -> tuple[dict[str, Any], memoryview]:
    """The head, with an object as ``binding``, and the bytes of the arrays, in a file whose hash is right."""
    data = memoryview(_read(path))
    try:
        digest, start, length, hashed = _start_1(data) if data[: len(_MAGIC_1)] == _MAGIC_1 else _start_2(data)
    except (ValueError, IndexError, struct.error) as error:
        raise ChatFileError(path, "it is damaged" if data[:8] in _BEGINNINGS else "it is not a saved chat") from error
    if hashlib.sha256(data[hashed:]).hexdigest() != digest:
        raise ChatFileError(path, "it is damaged")
    try:
        head = json.loads(bytes(data[start : start + length]))
    except (ValueError, RecursionError, OverflowError) as error:
        raise ChatFileError(path, f"it cannot be read ({error})") from error
    if not isinstance(head, dict) or not isinstance(head.get("binding"), dict):
        raise ChatFileError(path, "it does not say what it belongs to")
    return head, data[start + length :]


_BEGINNINGS = (_MAGIC[:8], _MAGIC_1)


def _start_1(data: memoryview) -> tuple[str, int, int, int]:
    """Digest, where the head begins and its length, and from where bytes are hashed."""
    _, digest, length = _START_1.unpack_from(data)
    return digest.hex(), _START_1.size, length, 40


def _start_2(data: memoryview) -> tuple[str, int, int, int]:
    """The same of files with a transcript."""
    lines = bytes(data[:_MOST_OF_START]).split(b"\n", 3)
    if len(lines) < 4 or lines[0] + b"\n" != _MAGIC:
        raise ValueError("its first lines")
    told, length = (int(word) for word in lines[2].split(b" "))
    hashed = len(lines[0]) + len(lines[1]) + 2
    return lines[1].decode("ascii"), hashed + len(lines[2]) + 1 + told, length, hashed


_MOST_OF_START = 200
"""Bytes of the first three lines, at most."""


def _read(path: Path) -> bytes:
    """The bytes of a regular file that begins as a saved chat does; of anything else nothing more is read."""
    try:
        if path.exists() and not path.is_file():
            raise ChatFileError(path, "it is no file")
        with path.open("rb") as stream:
            start = stream.read(8)
            return start + stream.read() if start in _BEGINNINGS else start
    except OSError as error:
        raise ChatFileError(path, error.strerror or str(error)) from error


def _difference(found: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    """The first thing that is not equal, the bundle before all others."""
    for name in sorted({*found, *wanted}, key=lambda name: (name != _MODEL, name)):
        if found.get(name) != wanted.get(name):
            ours, theirs = str(wanted.get(name))[:12], str(found.get(name))[:12]
            return f"another {name} ({theirs}, this model has {ours})"
    return None


def _read_arrays(body: memoryview, entries: Sequence[Any]) -> dict[str, npt.NDArray[Any]]:
    arrays, start = {}, 0
    for name, dtype, shape in entries:
        if dtype not in _TYPES or any(side < 0 for side in shape):
            raise ValueError(f"array {name}")
        size = int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))
        arrays[str(name)] = np.frombuffer(body[start : start + size], dtype).reshape(shape)
        start += size
    if start != len(body):
        raise ValueError("its length")
    return arrays
