"""Joules, where the machine tells them: RAPL counters, power sensors of boards, battery gauges.

Counters are read before and after; sensors that show watts only are sampled by a thread and integrated. A meter that
is there but may not be read is reported with the reason, never as zero.

Sources of the file formats, in the Linux tree: ``Documentation/power/powercap/powercap.rst``,
``Documentation/hwmon/sysfs-interface.rst`` and ``Documentation/ABI/testing/sysfs-class-power``.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Scope = Literal["package", "memory", "board", "battery"]
SYSFS = Path("/sys")
SAMPLE_SECONDS = 0.05
RAPL_FILES = "/sys/class/powercap/intel-rapl:*/energy_uj"


@dataclass(frozen=True)
class Meter:
    """One thing that can be read: a counter in joules, or a power in watts."""

    name: str
    scope: Scope
    read: Callable[[], float]
    counts: bool
    """True: ``read`` gives joules that only grow (up to ``wraps_at``). False: it gives watts."""
    wraps_at: float = 0.0


@dataclass(frozen=True)
class Energy:
    """What one meter saw between start and stop."""

    meter: str
    scope: Scope
    joules: float
    seconds: float
    samples: int


@dataclass(frozen=True)
class Meters:
    """Meters found, and a sentence for each one that cannot be read."""

    usable: tuple[Meter, ...]
    refused: tuple[str, ...]


def find_meters(sysfs: Path = SYSFS) -> Meters:
    """Look for meters under ``sysfs``."""
    refused: list[str] = []
    found = [*_rapl(sysfs), *_hwmon(sysfs), *_batteries(sysfs)]
    usable = []
    for meter in found:
        try:
            meter.read()
        except PermissionError:
            refused.append(f"{meter.name}: readable by root only; type: sudo chmod a+r {RAPL_FILES}")
        except (OSError, ValueError) as error:
            refused.append(f"{meter.name}: {error}")
        else:
            usable.append(meter)
    return Meters(tuple(usable), tuple(refused))


class EnergyRecorder:
    """Measures energy of the code inside ``with``; ``readings`` holds the result afterwards."""

    def __init__(self, meters: Sequence[Meter], sample_seconds: float = SAMPLE_SECONDS) -> None:
        self._meters = tuple(meters)
        self._interval = sample_seconds
        self._stop = threading.Event()
        self._watts: list[tuple[float, tuple[float, ...]]] = []
        self.readings: tuple[Energy, ...] = ()

    def __enter__(self) -> EnergyRecorder:
        """Take the first readings and start the sampling thread if a meter needs one."""
        self._stop.clear()
        self._watts = []
        self._sampled = [m for m in self._meters if not m.counts]
        self._started = time.perf_counter()
        self._first = {m.name: m.read() for m in self._meters if m.counts}
        self._thread = threading.Thread(target=self._sample, daemon=True) if self._sampled else None
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the last readings."""
        if self._thread:
            self._stop.set()
            self._thread.join()
        seconds = time.perf_counter() - self._started
        out = []
        for meter in self._meters:
            if meter.counts:
                joules = _difference(self._first[meter.name], meter.read(), meter.wraps_at)
                out.append(Energy(meter.name, meter.scope, joules, seconds, 2))
            else:
                out.append(self._integrated(meter, seconds))
        self.readings = tuple(out)

    def _sample(self) -> None:
        while True:
            self._watts.append((time.perf_counter(), tuple(m.read() for m in self._sampled)))
            if self._stop.wait(self._interval):
                self._watts.append((time.perf_counter(), tuple(m.read() for m in self._sampled)))
                return

    def _integrated(self, meter: Meter, seconds: float) -> Energy:
        column = self._sampled.index(meter)
        points = [(t, row[column]) for t, row in self._watts]
        joules = integrate(points)
        return Energy(meter.name, meter.scope, joules, seconds, len(points))


def integrate(points: Sequence[tuple[float, float]]) -> float:
    """Return joules from (seconds, watts) points by the trapezoid rule."""
    return sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in itertools.pairwise(points))


def _difference(first: float, last: float, wraps_at: float) -> float:
    return last - first if last >= first else last - first + wraps_at


def _number(path: Path) -> float:
    return float(path.read_text())


def _label(path: Path, default: str) -> str:
    try:
        return path.read_text().strip() or default
    except OSError:
        return default


def _rapl(sysfs: Path) -> list[Meter]:
    """Package and memory domains; core and graphics lie inside the package, and psys around it."""
    meters = []
    for zone in sorted((sysfs / "class/powercap").glob("intel-rapl:*")):
        name = _label(zone / "name", zone.name)
        scope: Scope = "memory" if name == "dram" else "package"
        if not (name.startswith("package") or name == "dram") or not (zone / "energy_uj").exists():
            continue
        try:
            wraps_at = _number(zone / "max_energy_range_uj") / 1e6
        except (OSError, ValueError):
            wraps_at = 0.0
        meters.append(Meter(f"rapl/{zone.name}/{name}", scope, _micro(zone / "energy_uj"), True, wraps_at))
    return meters


def _hwmon(sysfs: Path) -> list[Meter]:
    """Chips that show energy, power, or a current beside a voltage (INA219, INA226, INA3221, ...)."""
    meters: list[Meter] = []
    for chip in sorted((sysfs / "class/hwmon").glob("hwmon*")):
        name = f"{_label(chip / 'name', chip.name)}/{chip.name}"
        if energy := sorted(chip.glob("energy*_input")):
            meters += [Meter(f"{name}/{p.name}", "board", _micro(p), True) for p in energy]
        elif power := sorted(chip.glob("power*_input")) or sorted(chip.glob("power*_average")):
            meters += [Meter(f"{name}/{p.name}", "board", _micro(p), False) for p in power]
        else:
            for current in sorted(chip.glob("curr*_input")):
                voltage = chip / current.name.replace("curr", "in")
                if voltage.exists():
                    meters.append(Meter(f"{name}/{current.name}", "board", _product(current, voltage, 1e-6), False))
    return meters


def _batteries(sysfs: Path) -> list[Meter]:
    """Batteries that are being drained; a charging one says nothing about this program."""
    meters = []
    for supply in sorted((sysfs / "class/power_supply").glob("*")):
        if _label(supply / "type", "") != "Battery" or _label(supply / "status", "") != "Discharging":
            continue
        name = f"battery/{supply.name}"
        if (supply / "power_now").exists():
            meters.append(Meter(name, "battery", _micro(supply / "power_now"), False))
        elif (supply / "current_now").exists() and (supply / "voltage_now").exists():
            read = _product(supply / "current_now", supply / "voltage_now", 1e-12)
            meters.append(Meter(name, "battery", read, False))
    return meters


def _micro(path: Path) -> Callable[[], float]:
    return lambda: abs(_number(path)) / 1e6


def _product(left: Path, right: Path, scale: float) -> Callable[[], float]:
    return lambda: abs(_number(left)) * _number(right) * scale
