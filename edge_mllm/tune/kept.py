"""Tuned settings in the cache folder: one file for a machine and a bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from edge_mllm.bench.fingerprint import machine_id, package_versions
from edge_mllm.cpu import read_processor
from edge_mllm.plan.devices import cache_folder
from edge_mllm.typed_json import FieldError, plain, read_typed

_log = logging.getLogger(__name__)
SCHEMA = "edge-mllm-tuned/1"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What won, and by how much."""

    schema: str = SCHEMA
    machine: str
    """Id of the machine's fingerprint."""
    bundle: str
    """SHA-256 of bundle.json, which holds the hashes of all parts."""
    engine: str
    threads: int
    chunk: int
    """Prompt tokens computed at once."""
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


def bundle_hash(bundle: Path) -> str:
    """What a bundle goes by here."""
    return hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()


def keep(tuned: Tuned, folder: Path | None = None) -> Path:
    """Write settings to the cache folder."""
    path = _path(tuned.machine, tuned.bundle, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(dataclasses.asdict(tuned)), indent=1) + "\n", "utf-8")
    return path


def find(bundle: Path, folder: Path | None = None) -> Tuned | None:
    """Settings kept for this machine, this bundle and these versions; None where there are none.

    A file that cannot be read is as good as none; the log says so.
    """
    if not (bundle / "bundle.json").is_file() or not _folder(folder).is_dir():
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


def applicable(bundle: Path, engine: str | None, threads: int | None) -> Tuned | None:
    """Kept settings, unless the caller chose another engine or a number of threads."""
    if threads is not None:
        return None
    tuned = find(bundle)
    return tuned if tuned is not None and engine in (None, tuned.engine) else None


def _folder(folder: Path | None) -> Path:
    return (folder or cache_folder()) / "tuned"


def _path(machine: str, bundle: str, folder: Path | None) -> Path:
    return _folder(folder) / f"{machine}-{bundle[:16]}.json"
