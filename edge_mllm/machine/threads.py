"""How many threads to start by default: the fast physical cores that this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_FAST_CORE_SHARE = 0.6
"""A core counts as fast from this share of the fastest core's capacity on: keeps the big and the prime cores of a
phone chip (870 and 1024 of 1024) and leaves the little ones (160 to 450) to the system."""


_IN_ORDER = frozenset({0xD03, 0xD05, 0xD46, 0xD80})
"""Part numbers (register MIDR_EL1, bits 4 to 15) of Arm's little cores: Cortex-A53, A55, A510, A520."""
_IN_ORDER_SHARE = 0.5
"""What such a core does in a cycle beside a big one, at most (capacity-dmips-mhz of the kernel's device trees)."""


def default_threads(root: Path = Path("/")) -> int:
    """Count the fast physical cores available to this process; at least 1.

    Affinity, the cgroup's CPU quota, hyper-threads (one thread a core) and big.LITTLE capacities are taken into
    account where the system tells them.

    Args:
        root: Where ``sys`` and ``proc`` are mounted; another directory in tests.
    """
    cores = _cores(_fast(available_cpus(), root), root)
    quota = cpu_quota(root)
    count = len(cores) if quota is None else min(len(cores), math.ceil(quota))
    return max(1, count)


def available_cpus() -> tuple[int, ...]:
    """Logical CPU numbers this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the cgroups grant, or None where there is no limit. Source: the kernel's cgroup docs."""
    quotas = [quota for directory in _cgroup_directories(root) if (quota := _quota_of(directory)) is not None]
    return min(quotas, default=None)


def _cgroup_directories(root: Path) -> list[Path]:
    """Every cgroup directory that may limit this process, from the process's own up to the mount point."""
    found: list[Path] = []
    for line in kernel_text(root / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if hierarchy == "0":
            base = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            base = root / "sys/fs/cgroup/cpu"
        else:
            continue
        parts = [part for part in inside.split("/") if part not in ("", "..")]
        found += [base.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return found


def _quota_of(directory: Path) -> float | None:
    fields = kernel_text(directory / "cpu.max").split()  # version 2: "<quota or max> <period>"
    if not fields:
        files = (directory / f"cpu.cfs_{name}_us" for name in ("quota", "period"))  # version 1; -1 is no limit
        fields = [kernel_text(file) for file in files]
    if len(fields) != 2 or not fields[0].isdigit() or not fields[1].isdigit() or int(fields[1]) == 0:
        return None
    return int(fields[0]) / int(fields[1])


def _fast(cpus: tuple[int, ...], root: Path) -> tuple[int, ...]:
    for attribute in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speed = {cpu: float(_number(_cpu_directory(root, cpu) / attribute)) for cpu in cpus}
        if attribute != "cpu_capacity":
            speed = {cpu: clock * _work_in_a_cycle(cpu, root) for cpu, clock in speed.items()}
        if all(speed.values()):
            limit = _FAST_CORE_SHARE * max(speed.values())
            return tuple(cpu for cpu in cpus if speed[cpu] >= limit)
    return cpus


def _work_in_a_cycle(cpu: int, root: Path) -> float:
    midr = kernel_text(_cpu_directory(root, cpu) / "regs/identification/midr_el1")
    try:
        part = int(midr, 16) >> 4 & 0xFFF
    except ValueError:
        return 1.0
    return _IN_ORDER_SHARE if part in _IN_ORDER else 1.0


def _cores(cpus: tuple[int, ...], root: Path) -> set[str]:
    """One label for each physical core among ``cpus``; a CPU without topology counts as a core."""
    paths = ((cpu, _cpu_directory(root, cpu) / "topology/thread_siblings_list") for cpu in cpus)
    return {kernel_text(path) or f"cpu{cpu}" for cpu, path in paths}


def _cpu_directory(root: Path, cpu: int) -> Path:
    return root / f"sys/devices/system/cpu/cpu{cpu}"


def _number(path: Path) -> int:
    text = kernel_text(path)
    return int(text) if text.isdigit() else 0


def kernel_text(path: Path) -> str:
    """What a file of /proc or /sys says, without white space around it; empty where it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""
