"""Speeds of devices: measured ones, and estimates for others by the ratio of their limits.

A profile of another machine is scaled stage by stage with the limit that counts there: memory bandwidth for decoding,
8-bit products for tower and prefill, products of floats for attention. How near a kernel comes to the limit differs
between processors, so such a profile is an estimate and says so.
"""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path

from edge_mllm.costs.roofline import FLOATS, PROFILE_SCHEMA, DeviceProfile, Line, load_profile, save_profile
from edge_mllm.errors import SettingError
from edge_mllm.machine.cpu import read_processor
from edge_mllm.machine.fingerprint import fingerprint, machine_id
from edge_mllm.machine.folders import cache_folder
from edge_mllm.machine.peaks import Peaks

REFERENCE = "epyc-zen5-2core"
"""The measured profile that others are scaled from."""


def device_names() -> list[str]:
    """Devices that ship with the package."""
    folder = resources.files("edge_mllm.costs").joinpath("devices")
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def named_device(name: str) -> DeviceProfile:
    """A shipped device, or a profile file.

    Raises:
        SettingError: There is neither.
        ResultFileError: The file is no profile.
    """
    if name in device_names():
        with resources.as_file(resources.files("edge_mllm.costs").joinpath("devices", f"{name}.json")) as path:
            profile = load_profile(path)
        return profile if profile.lines else scaled(_reference(), profile)
    if Path(name).is_file():
        return load_profile(Path(name))
    raise SettingError(f"no device '{name}'; there are: {', '.join(device_names())}, or give a profile's file")


def this_machine(cache: Path | None = None) -> DeviceProfile:
    """The profile measured here, else the reference scaled by this machine's limits, which takes about a second."""
    measured = measured_here(cache)
    if measured is not None:
        return measured
    machine = fingerprint()
    empty = DeviceProfile(
        machine=machine.id,
        processor=machine.processor.model,
        memory_bytes=machine.memory_bytes,
        threads=machine.processor.sensible_threads,
        created="",
        lines={},
        peaks=machine.peaks,
        source="limits measured just now",
    )
    reference = _reference()
    return scaled(reference, empty)


def measured_here(cache: Path | None = None) -> DeviceProfile | None:
    """The profile that was measured on this machine; None where there is none.

    Raises:
        ResultFileError: The stored file is no profile.
    """
    stored = _kept(machine_id(read_processor()), cache)
    return load_profile(stored) if stored.is_file() else None


def keep_profile(profile: DeviceProfile, cache: Path | None = None) -> Path:
    """Store a measured profile for :func:`this_machine`."""
    path = _kept(profile.machine, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_profile(profile, path)
    return path


def _kept(machine: str, cache: Path | None) -> Path:
    """Named by the schema too, so that one of an earlier version is not there instead of an error."""
    return (cache or cache_folder()) / PROFILE_SCHEMA.replace("edge-mllm-device/", "devices-") / f"{machine}.json"


def scaled(reference: DeviceProfile, target: DeviceProfile) -> DeviceProfile:
    """The target with the reference's speeds, times the ratio of their limits.

    Raises:
        SettingError: One of them has no limits.
    """
    if reference.peaks is None or target.peaks is None:
        raise SettingError("a profile can be scaled only between devices whose limits are known")
    floats = target.peaks.float32_ops_per_s / reference.peaks.float32_ops_per_s
    lines = {
        name: _scaled_line(line, _share(name, reference.peaks, target.peaks), floats)
        for name, line in reference.lines.items()
    }
    source = f"estimated from {reference.processor} by the ratio of limits; {target.source}"
    return dataclasses.replace(target, lines=lines, source=source, estimated=True)


def _reference() -> DeviceProfile:
    return named_device(REFERENCE)


def _share(stage: str, reference: Peaks, target: Peaks) -> float:
    if stage.startswith("decode/"):
        return target.read_bytes_per_s / reference.read_bytes_per_s
    if stage == "picture" or stage.rsplit("/", 1)[-1] in FLOATS:
        return target.float32_ops_per_s / reference.float32_ops_per_s
    return target.int8_ops_per_s / reference.int8_ops_per_s


def _scaled_line(line: Line, share: float, floats: float) -> Line:
    return dataclasses.replace(
        line, rate=line.rate * share, attention_rate=line.attention_rate * floats, overhead=line.overhead / share
    )
