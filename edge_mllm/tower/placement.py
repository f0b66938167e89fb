"""What runs a bundle's tower: a library on the CPU, or an NPU that the bundle has a compiled tower for.

A compiled tower is used where the architecture, the SDK's release and the SHA-256 of its files are right; these checks
are ours (:mod:`edge_mllm.tower.npu`), because drivers and the simulator also take wrong ones. ``auto`` tries compiled
tower, graph and CPU in this order and says in one line of the log what it passed over and why; any other provider is
used or is an error.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from edge_mllm.bundle.files import OPENVINO_TOWER, OpenBundle
from edge_mllm.bundle.spec import BundleSpec, NpuTarget
from edge_mllm.errors import BundleError, ExtraMissingError, SettingError
from edge_mllm.machine.npu import CHIPS, Npu, NpuError, NpuKind, QnnLibrary, find_npus, qnn_library, simulated
from edge_mllm.machine.rknn import RknnLibrary, rknn_library
from edge_mllm.tower.engines import TOWER_ENGINES, TowerEngine, usable_engines
from edge_mllm.tower.npu import qnn, rknn
from edge_mllm.tower.npu.place import NpuPlace, find_tower

_log = logging.getLogger(__name__)

ProviderName = Literal["auto", "cpu", "qnn", "rknn", "openvino", "openvino-bf16"]
PROVIDERS: tuple[ProviderName, ...] = get_args(ProviderName)
_ENGINES: dict[str, TowerEngine] = {"cpu": "ort", "openvino": "openvino", "openvino-bf16": "openvino-bf16"}
_TARGETS: dict[NpuKind, NpuTarget] = {"hexagon": "qnn-htp", "rockchip": "rknn"}
_KINDS: dict[ProviderName, NpuKind] = {"qnn": "hexagon", "rknn": "rockchip"}
_NAMES: dict[NpuKind, str] = {"hexagon": "Hexagon", "rockchip": "Rockchip", "intel": "Intel"}
CPU = "CPU"


@dataclass(frozen=True)
class Provider:
    """What a caller asked for."""

    name: ProviderName = "auto"
    architecture: str = ""
    """Of the NPU, as ``v75`` or ``rk3588``; empty: this machine's."""


@dataclass(frozen=True)
class Placement:
    """Where a tower runs."""

    provider: ProviderName = "cpu"
    engine: TowerEngine = "ort"
    """The library, where it runs on the CPU."""
    npu: NpuPlace | None = None
    part: str = "vision"
    """The bundle's file, where it runs on the CPU."""
    sure: bool = True
    """What was asked for, so that a failure is an error."""

    @property
    def device(self) -> str:
        """For people and results."""
        return CPU if self.npu is None else self.npu.npu.label

    @property
    def label(self) -> str:
        """What the bits of embeddings depend on beside the tower's own files; empty on the CPU."""
        return "" if self.npu is None else self.npu.label


@dataclass(frozen=True)
class Machine:
    """How this machine is looked at."""

    npus: Callable[[], tuple[Npu, ...]] = find_npus
    library: Callable[[], QnnLibrary] = qnn_library
    """Of Qualcomm's."""
    rknn: Callable[[], RknnLibrary] = rknn_library
    """Of Rockchip's."""


def read_provider(text: str | None, engine: str | None = None) -> Provider:
    """What was asked for, from a provider's name or from the older option that names a library for the CPU.

    Args:
        text: One of :data:`PROVIDERS`, ``qnn:v75`` or ``rknn:rk3588``; None where it was not said.
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
    if name not in PROVIDERS or (colon and (name not in _KINDS or not architecture)):
        raise SettingError(
            f"no provider '{text}'; there are {', '.join(PROVIDERS)}, and qnn:v75 or rknn:rk3588 with an architecture"
        )
    if named is not None and name != named:
        raise SettingError(f"`provider='{text}'` and `vision_engine='{engine}'` contradict each other; leave one out")
    if architecture and name == "qnn":
        simulated(architecture)  # refuses what is no generation
    elif architecture and architecture not in CHIPS:
        raise NpuError(f"no Rockchip chip '{architecture}'; there are {', '.join(CHIPS)}")
    return Provider(next(each for each in PROVIDERS if each == name), architecture)


def on_cpu(spec: BundleSpec, engine: TowerEngine) -> Placement:
    """A library on the CPU, with the file of the bundle that is for it."""
    provider = next(name for name in PROVIDERS if _ENGINES.get(name) == engine)
    part = OPENVINO_TOWER if engine != "ort" and OPENVINO_TOWER in spec.parts else "vision"
    return Placement(provider, engine, part=part)


def cpu_placements(spec: BundleSpec) -> tuple[Placement, ...]:
    """Libraries that are installed and have fast code for a tower that the bundle holds, the default one first."""
    precision = spec.parts[on_cpu(spec, "openvino").part].precision
    return tuple(on_cpu(spec, engine) for engine in usable_engines(precision))


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
        return on_cpu(bundle.spec, _ENGINES[asked.name])
    if asked.name == "auto":
        return _best(bundle, machine, tiles)
    npu = _asked_npu(bundle, asked, machine)
    compiled, *others = _ways(bundle, npu, machine, tiles)
    way = compiled if others == [] or find_tower(bundle, _TARGETS[npu.kind], tiles).contexts else others[0]
    return Placement(asked.name, npu=way())


def _best(bundle: OpenBundle, machine: Machine, tiles: int) -> Placement:
    """Compiled tower, graph, CPU; without a word only where the bundle is for CPUs alone."""
    if not bundle.spec.npu:
        return Placement()
    try:
        npu = _own_npu(bundle, machine)
        ways = _ways(bundle, npu, machine, tiles)
    except (NpuError, ExtraMissingError) as error:
        _log.warning("the tower runs on the CPU: %s", error)
        return Placement(sure=False)
    passed = []
    for way in ways:
        try:
            place = way()
        except (NpuError, BundleError) as error:
            passed.append(str(error))
            continue
        if passed:
            _log.warning("the tower's graph is compiled for %s when it is loaded: %s", npu.label, passed[0])
        return Placement(next(name for name, kind in _KINDS.items() if kind == npu.kind), npu=place, sure=False)
    _log.warning("the tower runs on the CPU: %s", "; ".join(passed))
    return Placement(sure=False)


def _ways(bundle: OpenBundle, npu: Npu, machine: Machine, tiles: int) -> tuple[Callable[[], NpuPlace], ...]:
    """How a tower comes onto an NPU: compiled, else as a graph where a device compiles.

    Raises:
        ExtraMissingError: The NPU's library is not installed.
        NpuError: It lacks a file, or the bundle has no tower for this kind of NPU.
    """
    tower = find_tower(bundle, _TARGETS[npu.kind], tiles)
    if npu.kind == "rockchip":
        return (partial(rknn.compiled, bundle, tower, npu, machine.rknn()),)
    library = machine.library()
    return tuple(partial(way, bundle, tower, npu, library) for way in (qnn.compiled, qnn.from_graph))


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
    """This machine's NPU; where it has none, Qualcomm's simulator where the library has one."""
    kind = _KINDS[asked.name]
    npus = [npu for npu in machine.npus() if npu.kind == kind]
    if npus:
        npu = npus[0]
        if asked.architecture and npu.architecture not in ("", asked.architecture):
            raise NpuError(f"this machine's NPU is {npu.label}, not {asked.architecture}")
        return npu if npu.architecture else Npu(npu.kind, npu.name, asked.architecture)
    if kind == "rockchip" or not _has_simulator():
        raise NpuError(f"this machine has no {_NAMES[kind]} NPU whose driver can be reached")
    known = [each.architecture for tower in bundle.spec.npu if tower.target == "qnn-htp" for each in tower.contexts]
    return simulated(asked.architecture or (known[0] if known else "v75"))


def _own_npu(bundle: OpenBundle, machine: Machine) -> Npu:
    """The first NPU here of a kind that the bundle has a tower for."""
    npus, targets = machine.npus(), {tower.target for tower in bundle.spec.npu}
    for npu in npus:
        if _TARGETS.get(npu.kind) in targets:
            return npu
    wanted = " or ".join(_NAMES[kind] for kind, target in _TARGETS.items() if target in targets)
    found = f"; here is {npus[0].label}" if npus else ""
    raise NpuError(f"the bundle's NPU is a {wanted}, and this machine has none whose driver can be reached{found}")


def _has_simulator() -> bool:
    import platform

    return platform.machine() == "x86_64" and importlib.util.find_spec("onnxruntime_qnn") is not None
