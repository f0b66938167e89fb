"""What runs a bundle's tower: a library on the CPU, or an NPU that the bundle has a compiled tower for.

A compiled tower is used where the architecture, the SDK's release and the SHA-256 of its files are right; these checks
are ours, because drivers and the simulator also take wrong ones. ``auto`` tries compiled tower, graph and CPU in this
order and says in one line of the log what it passed over and why; any other provider is used or is an error.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from edge_mllm.bundle.spec import NpuContext, NpuTower
from edge_mllm.errors import BundleError, ExtraMissingError, SettingError
from edge_mllm.machine.npu import Npu, NpuError, QnnLibrary, find_npus, qnn_library, simulated
from edge_mllm.tower.engines import TOWER_ENGINES, TowerEngine, TowerSession
from edge_mllm.tower.npu.process import NpuGraph, NpuProcess, NpuSession

if TYPE_CHECKING:
    from edge_mllm.bundle.files import OpenBundle

_log = logging.getLogger(__name__)

ProviderName = Literal["auto", "cpu", "qnn", "openvino", "openvino-bf16"]
PROVIDERS: tuple[ProviderName, ...] = get_args(ProviderName)
_ENGINES: dict[str, TowerEngine] = {"cpu": "ort", "openvino": "openvino", "openvino-bf16": "openvino-bf16"}
CPU = "CPU"


@dataclass(frozen=True)
class Provider:
    """What a caller asked for."""

    name: ProviderName = "auto"
    architecture: str = ""
    """Of the NPU, as ``v75``; empty: this machine's."""


@dataclass(frozen=True)
class NpuPlace:
    """A tower's files for this machine's NPU, checked."""

    library: QnnLibrary
    graph: NpuGraph
    tiles: int
    npu: Npu
    precision: str
    compiled: bool
    """The bundle's compiled tower, not a graph that is compiled when it is loaded."""
    sha256: str
    """Of what is loaded."""

    def open(self) -> TowerSession:
        """Load it, in a process of its own.

        Raises:
            NpuError: The library refuses it, or its process ended.
        """
        return NpuSession(NpuProcess(self.library, self.graph), self.tiles)


@dataclass(frozen=True)
class Placement:
    """Where a tower runs."""

    provider: ProviderName = "cpu"
    engine: TowerEngine = "ort"
    """The library, where it runs on the CPU."""
    npu: NpuPlace | None = None
    sure: bool = True
    """What was asked for, so that a failure is an error."""

    @property
    def device(self) -> str:
        """For people and results."""
        return CPU if self.npu is None else self.npu.npu.label

    @property
    def label(self) -> str:
        """What the bits of embeddings depend on beside the tower's own files; empty on the CPU."""
        if self.npu is None:
            return ""
        return f"{self.npu.sha256} {self.npu.npu.architecture} qnn {self.npu.library.sdk} {self.npu.tiles}"


@dataclass(frozen=True)
class Machine:
    """How this machine is looked at."""

    npus: Callable[[], tuple[Npu, ...]] = find_npus
    library: Callable[[], QnnLibrary] = qnn_library


def read_provider(text: str | None, engine: str | None = None) -> Provider:
    """What was asked for, from a provider's name or from the older option that names a library for the CPU.

    Args:
        text: ``auto``, ``cpu``, ``qnn``, ``qnn:v75``, ``openvino`` or ``openvino-bf16``; None where it was not said.
        engine: One of :data:`edge_mllm.tower.engines.TOWER_ENGINES`, or None.

    Raises:
        SettingError: There is no such provider, or the two contradict each other.
    """
    named = None if engine is None else next((name for name in PROVIDERS if _ENGINES.get(name) == engine), None)
    if engine is not None and named is None:
        raise SettingError(f"no vision engine '{engine}'; there are {', '.join(TOWER_ENGINES)}")
    if text is None:
        return Provider(named or "auto")
    name, colon, architecture = text.partition(":")
    if name not in PROVIDERS or (colon and (name != "qnn" or not architecture)):
        raise SettingError(f"no provider '{text}'; there are {', '.join(PROVIDERS)}, and qnn:v75 with an architecture")
    if named is not None and name != named:
        raise SettingError(f"`provider='{text}'` and `vision_engine='{engine}'` contradict each other; leave one out")
    if architecture:
        simulated(architecture)  # refuses what is no generation
    return Provider(next(each for each in PROVIDERS if each == name), architecture)


def place_tower(bundle: OpenBundle, asked: Provider, machine: Machine | None = None, *, tiles: int = 1) -> Placement:
    """Decide what runs the tower of a bundle.

    Args:
        bundle: Opened.
        asked: The provider.
        machine: How its NPUs and libraries are found.
        tiles: That will be given at once; a bundle may have a tower for several of them.

    Raises:
        ExtraMissingError: The library of the provider that was asked for is not installed.
        NpuError: There is no such NPU here, or the bundle's tower is not for it.
        BundleError: A file of the tower for the NPU is damaged.
    """
    machine = machine or Machine()
    if asked.name in _ENGINES:
        return Placement(asked.name, _ENGINES[asked.name])
    if asked.name == "auto":
        return _best(bundle, machine, tiles)
    npu = _asked_npu(bundle, asked, machine)
    tower, library = _tower(bundle, tiles), machine.library()
    return Placement("qnn", npu=(_compiled if tower.contexts else _graph)(bundle, tower, npu, library))


def _best(bundle: OpenBundle, machine: Machine, tiles: int) -> Placement:
    """Compiled tower, graph, CPU; without a word only where the bundle is for CPUs alone."""
    if not bundle.spec.npu:
        return Placement()
    try:
        npu, tower, library = _own_npu(machine), _tower(bundle, tiles), machine.library()
    except (NpuError, ExtraMissingError) as error:
        _log.warning("the tower runs on the CPU: %s", error)
        return Placement(sure=False)
    passed = []
    for way in (_compiled, _graph):
        try:
            place = way(bundle, tower, npu, library)
        except (NpuError, BundleError) as error:
            passed.append(str(error))
            continue
        if passed:
            _log.warning("the tower's graph is compiled for %s when it is loaded: %s", npu.label, passed[0])
        return Placement("qnn", npu=place, sure=False)
    _log.warning("the tower runs on the CPU: %s", "; ".join(passed))
    return Placement(sure=False)


def fall_back(placement: Placement, error: NpuError) -> Placement:
    """The CPU, for a tower that could not be loaded where ``auto`` put it.

    Raises:
        NpuError: The NPU was asked for by name.
    """
    if placement.sure:
        raise error
    _log.warning("the tower runs on the CPU: %s", error)
    return Placement(sure=False)


def _asked_npu(bundle: OpenBundle, asked: Provider, machine: Machine) -> Npu:
    """This machine's NPU; where it has none, the simulator where the library has one."""
    npus = [npu for npu in machine.npus() if npu.kind == "hexagon"]
    if npus:
        npu = npus[0]
        if asked.architecture and npu.architecture not in ("", asked.architecture):
            raise NpuError(f"this machine's NPU is {npu.label}, not {asked.architecture}")
        return npu if npu.architecture else Npu(npu.kind, npu.name, asked.architecture)
    if not _has_simulator():
        raise NpuError("this machine has no Hexagon NPU whose driver can be reached")
    known = [context.architecture for tower in bundle.spec.npu for context in tower.contexts]
    return simulated(asked.architecture or (known[0] if known else "v75"))


def _own_npu(machine: Machine) -> Npu:
    npus = [npu for npu in machine.npus() if npu.kind == "hexagon"]
    if not npus:
        raise NpuError("the bundle's NPU is a Hexagon, and this machine has none whose driver can be reached")
    return npus[0]


def _has_simulator() -> bool:
    import platform

    return platform.machine() == "x86_64" and importlib.util.find_spec("onnxruntime_qnn") is not None


def _tower(bundle: OpenBundle, tiles: int) -> NpuTower:
    """The tower of the most tiles a run that are not more than there will be."""
    fitting = [tower for tower in bundle.spec.npu if tower.tiles <= tiles]
    if fitting:
        return max(fitting, key=lambda tower: tower.tiles)
    raise NpuError(f"'{bundle.spec.name}' has no tower for an NPU; export it with `target='qnn-htp'`")


def _compiled(bundle: OpenBundle, tower: NpuTower, npu: Npu, library: QnnLibrary) -> NpuPlace:
    context = _context(bundle, tower, npu)
    if ".".join(context.sdk.split(".")[:2]) != library.release:
        raise NpuError(
            f"the tower for {context.architecture} was compiled by QNN {context.sdk}, installed is {library.sdk} "
            f"(onnxruntime-qnn {library.version}); export the model again or install the other version"
        )
    bundle.checked(context.binary)
    graph = NpuGraph(file=bundle.checked(context.graph), architecture=npu.architecture, half=_half(tower))
    return NpuPlace(library, graph, tower.tiles, npu, tower.precision, True, context.binary.sha256.lower())


def _context(bundle: OpenBundle, tower: NpuTower, npu: Npu) -> NpuContext:
    for context in tower.contexts:
        if context.architecture == npu.architecture:
            return context
    known = ", ".join(context.architecture for context in tower.contexts) or "none"
    raise NpuError(
        f"'{bundle.spec.name}' has compiled towers for {known}, this NPU is {npu.label}; "
        f"export it with `target='qnn-htp:{npu.architecture or 'vNN'}'`"
    )


def _graph(bundle: OpenBundle, tower: NpuTower, npu: Npu, library: QnnLibrary) -> NpuPlace:
    if not npu.architecture:
        raise NpuError(f"the architecture of {npu.label} is not known; say it, as in `provider='qnn:v75'`")
    graph = NpuGraph(file=bundle.checked(tower.graph), architecture=npu.architecture, half=_half(tower))
    return NpuPlace(library, graph, tower.tiles, npu, tower.precision, False, tower.graph.sha256.lower())


def _half(tower: NpuTower) -> bool:
    return tower.precision == "fp16"
