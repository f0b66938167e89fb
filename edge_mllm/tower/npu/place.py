"""A bundle's tower where an NPU of this machine can run it: files that were checked, and what opens them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mllm.bundle.spec import NpuContext, NpuTarget, NpuTower, Part
from edge_mllm.errors import BundleError
from edge_mllm.machine.npu import Npu, NpuError
from edge_mllm.tower.engines import TowerSession
from edge_mllm.tower.npu.process import NpuLoad, NpuProcess, NpuSession

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mllm.bundle.files import OpenBundle


@dataclass(frozen=True)
class NpuPlace:
    """A tower's files for this machine's NPU, checked."""

    load: NpuLoad
    tiles: int
    """Of one run."""
    npu: Npu
    precision: str
    compiled: bool
    """The bundle's compiled tower, not a graph that is compiled when it is loaded."""
    sha256: str
    """Of what is loaded."""
    software: str
    """Name and version of the library, as ``qnn 2.51.0``."""

    def open(self) -> TowerSession:
        """Load it, in a process of its own.

        Raises:
            NpuError: The library refuses it, or its process ended.
        """
        return NpuSession(NpuProcess(self.load), self.tiles)

    @property
    def label(self) -> str:
        """What the bits of embeddings depend on beside the tower's own files."""
        return f"{self.sha256} {self.npu.architecture} {self.software} {self.tiles}"


def find_tower(bundle: OpenBundle, target: NpuTarget, tiles: int) -> NpuTower:
    """The tower of the most tiles a run that are not more than there will be.

    Raises:
        NpuError: The bundle has none for this kind of NPU.
    """
    fitting = [tower for tower in bundle.spec.npu if tower.target == target and tower.tiles <= tiles]
    if fitting:
        return max(fitting, key=lambda tower: tower.tiles)
    others = ", ".join(dict.fromkeys(tower.target for tower in bundle.spec.npu))
    what = f"a tower for {others} alone" if others else "no tower for an NPU"
    raise NpuError(f"'{bundle.spec.name}' has {what}; export it with `target='{target}'`")


def find_context(bundle: OpenBundle, tower: NpuTower, npu: Npu) -> NpuContext:
    """What was compiled for an NPU.

    Raises:
        NpuError: The bundle has nothing for this architecture.
    """
    for context in tower.contexts:
        if context.architecture == npu.architecture:
            return context
    known = ", ".join(context.architecture for context in tower.contexts) or "none"
    raise NpuError(
        f"'{bundle.spec.name}' has compiled towers for {known}, this NPU is {npu.label}; "
        f"export it with `target='{tower.target}:{npu.architecture or 'vNN'}'`"
    )


def checked_graph(bundle: OpenBundle, tower: NpuTower, part: Part | None) -> Path:
    """Path of a graph that a tower of this target must have, its SHA-256 compared.

    Raises:
        BundleError: It is damaged, or bundle.json names none.
    """
    if part is None:
        raise BundleError(bundle.path, f"bundle.json names no graph of the tower for {tower.target}")
    return bundle.checked(part)
