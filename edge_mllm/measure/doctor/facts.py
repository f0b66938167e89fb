"""What is known of a machine before it is judged, and what a judgement says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edge_mllm.machine.cpu import Processor
from edge_mllm.machine.npu import Npu, QnnLibrary
from edge_mllm.machine.rknn import RknnLibrary
from edge_mllm.machine.sensors.thermal import Thermal

Status = Literal["ok", "info", "warning", "problem"]
_AMX_FIXED = {11: (11, 5), 12: (12, 4), 13: (13, 3)}
"""First GCC of each major version whose ``_tile_loadconfig`` tells the compiler that it reads all 64 bytes (GCC bug
114098). Before, the stores that fill them are dropped and ``ldtilecfg`` faults on what lay there."""


@dataclass(frozen=True)
class LlamaBuild:
    """The installed llama.cpp."""

    version: str
    features: frozenset[str]
    """Names that its system info shows as 1."""
    repacks: bool
    gcc: tuple[int, ...] | None = None
    """Version of the GCC that compiled it, where the library says so."""

    @property
    def amx_faults(self) -> bool:
        """Whether its AMX code was compiled wrongly: every prompt over quantised weights then ends the process."""
        if self.gcc is None or "AMX_INT8" not in self.features:
            return False
        return self.gcc[:2] < _AMX_FIXED.get(self.gcc[0], (0, 0)) or self.gcc[0] < 11


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything the judgement rests on."""

    processor: Processor
    memory: dict[str, int]
    """/proc/meminfo in bytes."""
    thermal: Thermal
    others: float | None
    """Cores that other programs keep busy; None where the system does not tell."""
    environment: dict[str, str]
    """The variables that set numbers of threads."""
    llama: LlamaBuild | None
    llama_error: str | None
    """Why the installed llama.cpp cannot be loaded; None when it is absent or works."""
    onnxruntime_version: str | None
    providers: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]
    """Optional feature -> distributions it lacks."""
    meters: tuple[str, ...]
    refused_meters: tuple[str, ...]
    free_disk: int | None
    npus: tuple[Npu, ...] = ()
    qnn: QnnLibrary | str = ""
    """The plug-in for Qualcomm's NPUs, or why there is none."""
    rknn: RknnLibrary | str = ""
    """The libraries for Rockchip's NPUs, or why there are none."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    status: Status
    topic: str
    detail: str
    remedy: str = ""


def parse_system_info(text: str) -> frozenset[str]:
    """Names switched on in llama.cpp's ``CPU : AVX = 1 | AVX2 = 1 | ...``."""
    found = set()
    for group in text.replace("\n", "|").split("|"):
        name, equals, value = group.rpartition(":")[2].partition("=")
        if equals and value.strip() not in ("0", ""):
            found.add(name.strip())
    return frozenset(found)


def parse_gcc(data: bytes) -> tuple[int, ...] | None:
    """Version of the GCC that left ``GCC: (...) 12.2.0`` in the bytes of an ELF file; None for other compilers."""
    mark = re.search(rb"GCC: \([^)\0]*\) (\d+)\.(\d+)\.(\d+)", data)
    return tuple(int(number) for number in mark.groups()) if mark else None
