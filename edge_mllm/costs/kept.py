"""Tuned settings in the cache folder: one file for a machine and a model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mllm.bundle.published.directory import is_published
from edge_mllm.bundle.published.files import folder_of
from edge_mllm.machine.cpu import read_processor
from edge_mllm.machine.fingerprint import machine_id, package_versions
from edge_mllm.machine.folders import cache_folder
from edge_mllm.typed_json import FieldError, plain, read_typed
from edge_mllm.whole_file import write_whole

_log = logging.getLogger(__name__)
SCHEMA = "edge-mllm-tuned/2"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What won, and by how much."""

    schema: str = SCHEMA
    machine: str
    """Id of the machine's fingerprint."""
    bundle: str
    """See :func:`bundle_hash`."""
    engine: str
    threads: int
    chunk: int
    """Prompt tokens computed at once."""
    tile_batch: int
    """Tiles of a picture encoded at once."""
    precision: str | None
    """Of the decoder, where a published directory has several."""
    seconds: float
    """Of the question that was searched for, with these settings."""
    default_seconds: float
    """With the default ones."""
    created: str
    versions: dict[str, str]
    """Of the packages that decide the speed; with others the settings no longer count."""
    tile_s: float | None = None
    """Of the tower for one tile, with these settings; None in files of older releases."""
    token_s: float | None = None
    """Of prefill for one token."""
    vision_engine: str = "ort"
    """The library that ran the tower."""
    kv_type: str | None = None
    """Precision of the decoder's cache; None is the engine's own."""
    other_cores: float | None = None
    """Cores that other programs kept busy during the search; None where the system does not tell."""

    @property
    def measured(self) -> tuple[str, str, int, int, str | None]:
        """What its rates hold for: decoder, tower library, threads, chunk, cache."""
        return self.engine, self.vision_engine, self.threads, self.chunk, self.kv_type

    def options(self) -> dict[str, Any]:
        """As :func:`edge_mllm.load` takes them."""
        options = {
            "engine": self.engine,
            "threads": self.threads,
            "chunk": self.chunk,
            "tile_batch": self.tile_batch,
            "kv_type": self.kv_type,
            "vision_engine": None if self.vision_engine == "ort" else self.vision_engine,
            "precision": None if self.precision is None else f"decoder_model_merged={self.precision}",
        }
        return {name: value for name, value in options.items() if value is not None}


def bundle_hash(model: Path) -> str:
    """What a model goes by here.

    Of a bundle the SHA-256 of bundle.json, which holds the hashes of all parts; of a published directory that of the
    names, sizes and times of its ONNX files, because reading them takes as long as an answer.
    """
    manifest = model / "bundle.json"
    if manifest.is_file():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    files = sorted((folder_of(model) or model).glob("*.onnx*"))
    about = [(file.name, stat.st_size, stat.st_mtime_ns) for file in files if (stat := file.stat())]
    return hashlib.sha256(repr(about).encode()).hexdigest()


def check_room(folder: Path | None = None) -> None:
    """See that settings can be kept, before minutes are spent on finding them.

    Raises:
        OSError: The cache folder cannot be made or written to.
    """
    place = _folder(folder)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=place):
        pass


def keep(tuned: Tuned, folder: Path | None = None) -> Path:
    """Write settings to the cache folder; the file appears whole or not at all.

    Raises:
        OSError: The disk is full or the folder cannot be written to.
    """
    path = _path(tuned.machine, tuned.bundle, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(dataclasses.asdict(tuned)), indent=1) + "\n"
    write_whole(path, [text.encode()])
    return path


def find(bundle: Path, folder: Path | None = None) -> Tuned | None:
    """Settings kept for this machine, this bundle and these versions; None where there are none.

    A file that cannot be read is as good as none; the log says so.
    """
    known = (bundle / "bundle.json").is_file() or is_published(bundle)
    if not known or not _folder(folder).is_dir():
        return None
    path = _path(machine_id(read_processor()), bundle_hash(bundle), folder)
    if not path.is_file():
        return None
    try:
        found: Tuned = read_typed(Tuned, json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, FieldError) as error:
        _log.warning("the tuned settings in %s cannot be read (%s); the defaults are used", path, error)
        return None
    if found.schema != SCHEMA or found.versions != package_versions():
        _log.info("the tuned settings in %s are for other versions; the defaults are used", path)
        return None
    return found


def applicable(bundle: Path, engine: str | None, threads: int | None, precision: str | None = None) -> Tuned | None:
    """Kept settings, unless the caller chose another engine, a precision or a number of threads."""
    if threads is not None or precision is not None:
        return None
    tuned = find(bundle)
    return tuned if tuned is not None and engine in (None, tuned.engine) else None


def _folder(folder: Path | None) -> Path:
    return (folder or cache_folder()) / "tuned"


def _path(machine: str, bundle: str, folder: Path | None) -> Path:
    return _folder(folder) / f"{machine}-{bundle[:16]}.json"
