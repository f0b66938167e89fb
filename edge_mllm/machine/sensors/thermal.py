"""Temperature, clock and signs of throttling before, during and after a measurement."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys")

_FIRMWARE_BITS = {
    0: "under-voltage",
    1: "arm frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Bits of the Raspberry Pi firmware's ``get_throttled`` (raspberrypi.com documentation, vcgencmd)."""


@dataclass(frozen=True)
class Thermal:
    """The machine's state at one moment; None where it does not tell."""

    celsius: float | None
    throttle_events: int | None
    """Sum of the kernel's thermal throttle counters over all cores."""
    clock_mhz: float | None
    """Mean current clock of the cores."""
    max_clock_mhz: float | None
    cooling: tuple[str, ...]
    """Cooling devices that hold a processor back now."""
    firmware: tuple[str, ...]
    """What the board's firmware complains about now."""


def read_thermal(sysfs: Path = SYSFS) -> Thermal:
    """Read the state of this machine."""
    return Thermal(
        celsius=_hottest(sysfs),
        throttle_events=_throttle_events(sysfs),
        clock_mhz=_mean_clock(sysfs, "scaling_cur_freq"),
        max_clock_mhz=_mean_clock(sysfs, "cpuinfo_max_freq"),
        cooling=_active_cooling(sysfs),
        firmware=_firmware_flags(sysfs),
    )


def throttling(before: Thermal, after: Thermal) -> tuple[str, ...]:
    """Return what slowed the machine down between two moments, empty when nothing was seen."""
    flags = []
    if before.throttle_events is not None and after.throttle_events is not None:
        events = after.throttle_events - before.throttle_events
        if events > 0:
            flags.append(f"{events} thermal throttle events")
    flags += [f"cooling: {name}" for name in after.cooling]
    flags += [f"firmware: {name}" for name in after.firmware]
    return tuple(flags)


def decode_firmware(value: int) -> tuple[str, ...]:
    """Name the bits that are set now in a ``get_throttled`` value (the upper half is history)."""
    return tuple(name for bit, name in _FIRMWARE_BITS.items() if value >> bit & 1)


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _numbers(paths: list[Path]) -> list[float]:
    return [value for path in paths if (value := _number(path)) is not None]


def _hottest(sysfs: Path) -> float | None:
    zones = _numbers(sorted((sysfs / "class/thermal").glob("thermal_zone*/temp")))
    plausible = [z / 1000 for z in zones if 0 < z < 150_000]
    return max(plausible) if plausible else None


def _throttle_events(sysfs: Path) -> int | None:
    counts = _numbers(sorted((sysfs / "devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")))
    return int(sum(counts)) if counts else None


def _mean_clock(sysfs: Path, name: str) -> float | None:
    clocks = _numbers(sorted((sysfs / "devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{name}")))
    return sum(clocks) / len(clocks) / 1000 if clocks else None


def _active_cooling(sysfs: Path) -> tuple[str, ...]:
    active = []
    for device in sorted((sysfs / "class/thermal").glob("cooling_device*")):
        state = _number(device / "cur_state")
        kind = ""
        with contextlib.suppress(OSError):
            kind = (device / "type").read_text().strip()
        # Fans and displays are cooling devices too; only those that slow a processor matter.
        if state and any(word in kind.lower() for word in ("processor", "cpu")):
            active.append(f"{kind} at {state:.0f}")
    return tuple(active)


def _firmware_flags(sysfs: Path) -> tuple[str, ...]:
    for path in sorted((sysfs / "devices/platform").glob("soc*/soc*:firmware/get_throttled")):
        with contextlib.suppress(OSError, ValueError):
            return decode_firmware(int(path.read_text(), 16))
    return ()
