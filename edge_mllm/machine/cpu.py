"""What kind of processor this is: model, cores, instruction sets, governor. Linux files, parsed by pure functions."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from edge_mllm.machine.threads import available_cpus, cpu_quota, default_threads, kernel_text

RELEVANT_FLAGS = (
    *("ssse3", "sse4_1", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni", "avx512f", "avx512bw", "avx512vl"),
    *("avx512vbmi", "avx512_vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2"),
)
"""Names as /proc/cpuinfo spells them, of instruction sets that matrix products use."""

_ARM_PARTS = {
    *(
        (0x41, 0xD03, "Cortex-A53"),
        (0x41, 0xD05, "Cortex-A55"),
        (0x41, 0xD07, "Cortex-A57"),
        (0x41, 0xD08, "Cortex-A72"),
    ),
    *(
        (0x41, 0xD09, "Cortex-A73"),
        (0x41, 0xD0A, "Cortex-A75"),
        (0x41, 0xD0B, "Cortex-A76"),
        (0x41, 0xD0C, "Neoverse-N1"),
    ),
    *(
        (0x41, 0xD0D, "Cortex-A77"),
        (0x41, 0xD40, "Neoverse-V1"),
        (0x41, 0xD41, "Cortex-A78"),
        (0x41, 0xD44, "Cortex-X1"),
    ),
    *(
        (0x41, 0xD46, "Cortex-A510"),
        (0x41, 0xD47, "Cortex-A710"),
        (0x41, 0xD48, "Cortex-X2"),
        (0x41, 0xD49, "Neoverse-N2"),
    ),
    *((0x41, 0xD4D, "Cortex-A715"), (0x41, 0xD4E, "Cortex-X3"), (0x41, 0xD4F, "Neoverse-V2")),
}
"""Implementer, part and name, from the Arm technical reference manuals (register MIDR_EL1)."""


@dataclass(frozen=True)
class CPUInfo:
    """What /proc/cpuinfo says."""

    model: str
    flags: frozenset[str]
    """Every flag of the first core."""


@dataclass(frozen=True)
class Processor:
    """The processor of this machine as a program sees it."""

    model: str
    architecture: str
    logical_cores: int
    physical_cores: int
    usable_cores: int
    """Cores this process may run on (affinity)."""
    quota_cores: float | None
    """Processor time a container's limit allows, in cores; None without a limit."""
    clusters: tuple[int, ...]
    """Cores per kind, fastest first: (4,) on a plain chip, (2, 6) on a big.LITTLE one."""
    flags: tuple[str, ...]
    governor: str | None
    frequency_driver: str | None
    sensible_threads: int
    """Threads beyond this slow matrix products down: what the engines use by default."""


def parse_cpuinfo(text: str) -> CPUInfo:
    """Parse /proc/cpuinfo of x86 or Arm."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    return CPUInfo(fields.get("model name") or _arm_name(text) or fields.get("Hardware", ""), frozenset(flags.split()))


def read_cpuinfo(root: Path = Path("/")) -> CPUInfo:
    """What /proc/cpuinfo says; empty where there is none. ``root`` is where ``proc`` is mounted."""
    return parse_cpuinfo(kernel_text(root / "proc/cpuinfo"))


def read_processor(root: Path = Path("/")) -> Processor:
    """Describe this machine's processor.

    Args:
        root: Where ``sys`` and ``proc`` are mounted; another directory in tests.
    """
    info = read_cpuinfo(root)
    cpus = root / "sys/devices/system/cpu"
    logical = os.cpu_count() or 1
    board = kernel_text(root / "proc/device-tree/model").strip("\0\n ")
    model = " / ".join(name for name in (board, info.model) if name) or platform.processor() or platform.machine()
    return Processor(
        model=model,
        architecture=platform.machine(),
        logical_cores=logical,
        physical_cores=_physical_cores(cpus) or logical,
        usable_cores=len(available_cpus()),
        quota_cores=cpu_quota(root),
        clusters=_clusters(cpus),
        flags=tuple(flag for flag in RELEVANT_FLAGS if flag in info.flags),
        governor=kernel_text(cpus / "cpu0/cpufreq/scaling_governor") or None,
        frequency_driver=kernel_text(cpus / "cpu0/cpufreq/scaling_driver") or None,
        sensible_threads=default_threads(root),
    )


def _arm_name(text: str) -> str:
    implementers = [line.split(":")[1] for line in text.splitlines() if line.startswith("CPU implementer")]
    parts = [line.split(":")[1] for line in text.splitlines() if line.startswith("CPU part")]
    names: dict[str, int] = {}
    known = {(implementer, part): name for implementer, part, name in _ARM_PARTS}
    for implementer, part in zip(implementers, parts, strict=False):
        key = (int(implementer, 16), int(part, 16))
        name = known.get(key, f"Arm {key[0]:#04x}/{key[1]:#05x}")
        names[name] = names.get(name, 0) + 1
    return " + ".join(f"{count}x {name}" for name, count in names.items())


def _physical_cores(cpus: Path) -> int:
    siblings = {kernel_text(path) for path in cpus.glob("cpu[0-9]*/topology/thread_siblings_list")}
    return len(siblings - {""})


def _clusters(cpus: Path) -> tuple[int, ...]:
    """Physical cores per kind, fastest first, by the kernel's capacity figure or the highest clock.

    Clocks of one kind of core may differ by a few per cent (favoured cores), so kinds lie at least a fifth apart.
    """
    speeds: dict[str, float] = {}
    for cpu in cpus.glob("cpu[0-9]*"):
        text = kernel_text(cpu / "cpu_capacity") or kernel_text(cpu / "cpufreq/cpuinfo_max_freq")
        if text.isdigit():
            speeds[kernel_text(cpu / "topology/thread_siblings_list") or cpu.name] = float(text)
    counts: list[int] = []
    fastest = 0.0
    for speed in sorted(speeds.values(), reverse=True):
        if counts and speed > 0.8 * fastest:
            counts[-1] += 1
        else:
            counts.append(1)
            fastest = speed
    return tuple(counts)
