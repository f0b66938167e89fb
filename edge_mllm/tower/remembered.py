"""Which library was chosen for a tower, kept in the cache folder: one file for a machine, a tower and its threads.

It counts until ONNX Runtime, OpenVINO, this package or the tower change, so that two runs give the same embeddings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from edge_mllm.bundle.files import OPENVINO_TOWER
from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.machine.cpu import read_processor
from edge_mllm.machine.fingerprint import machine_id, package_versions
from edge_mllm.machine.folders import cache_folder
from edge_mllm.tower.engines import TowerEngine
from edge_mllm.typed_json import FieldError, read_typed
from edge_mllm.whole_file import write_first, write_whole

_log = logging.getLogger(__name__)
SCHEMA = "edge-mllm-tower/1"
_DECIDING = ("edge-mllm", "onnxruntime", "openvino")
"""Packages of which another version may be faster, or give other bits."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What runs a tower, and why."""

    schema: str = SCHEMA
    engine: TowerEngine
    by: Literal["first picture", "tune"]
    """What measured."""
    seconds: dict[str, float]
    """Of one tile, by the libraries that ran it."""
    passed: dict[str, str]
    """Libraries that may not be taken, and why."""
    measured_s: float
    """What the measurement took."""
    machine: str
    """Id of the machine's fingerprint."""
    tower: str
    """SHA-256 over the bundle's towers."""
    threads: int
    versions: dict[str, str]


class ChoiceMemory:
    """The choice for one tower and number of threads on this machine.

    Args:
        spec: Of the bundle.
        threads: Of one run of the tower.
        folder: In place of the cache folder.
    """

    def __init__(self, spec: BundleSpec, threads: int, folder: Path | None = None) -> None:
        parts = [spec.parts[name] for name in ("vision", OPENVINO_TOWER) if name in spec.parts]
        text = " ".join(f"{part.sha256.lower()} {part.precision}" for part in parts)
        self._tower = hashlib.sha256(text.encode()).hexdigest()
        self._threads, self._folder = threads, (folder or cache_folder()) / "towers"

    @cached_property
    def _machine(self) -> str:
        return machine_id(read_processor())

    @property
    def path(self) -> Path:
        """The file."""
        return self._folder / f"{self._machine}-{self._tower[:16]}-{self._threads}.json"

    def find(self) -> Chosen | None:
        """What was chosen with these versions; None where nothing was. An unreadable file is as good as none."""
        if not self.path.is_file():
            return None
        try:
            found: Chosen = read_typed(Chosen, json.loads(self.path.read_text("utf-8")))
        except (OSError, ValueError, FieldError) as error:
            _log.warning("the choice of the tower's library in %s cannot be read (%s)", self.path, error)
            return None
        fits = (found.schema, found.tower, found.versions) == (SCHEMA, self._tower, _versions())
        return found if fits else None

    def check_room(self) -> None:
        """See that a choice can be kept, before time is spent on it.

        Raises:
            OSError: The folder cannot be made or written to.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder):
            pass

    def chosen(
        self,
        engine: TowerEngine,
        by: Literal["first picture", "tune"],
        *,
        seconds: dict[str, float],
        passed: dict[str, str],
        measured_s: float,
    ) -> Chosen:
        """A choice, with what it holds for."""
        return Chosen(
            engine=engine,
            by=by,
            seconds=seconds,
            passed=passed,
            measured_s=measured_s,
            machine=self._machine,
            tower=self._tower,
            threads=self._threads,
            versions=_versions(),
        )

    def keep_first(self, chosen: Chosen) -> Chosen:
        """Keep a choice unless another process kept one meanwhile; the one that counts.

        Raises:
            OSError: The disk is full or the folder cannot be written to.
        """
        if write_first(self.path, [_bytes(chosen)]):
            return chosen
        there = self.find()
        if there is None:  # of other versions, or damaged
            self.replace(chosen)
        return there or chosen

    def replace(self, chosen: Chosen) -> None:
        """Keep a choice in place of any before.

        Raises:
            OSError: The disk is full or the folder cannot be written to.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, [_bytes(chosen)])


def _bytes(chosen: Chosen) -> bytes:
    return (json.dumps(dataclasses.asdict(chosen), indent=1) + "\n").encode()


def _versions() -> dict[str, str]:
    return {name: version for name, version in package_versions().items() if name in _DECIDING}
