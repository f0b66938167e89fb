"""NPUs that a bundle's tower can be written for beside the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from edge_mllm.bundle.spec import NpuPrecision, NpuTarget
from edge_mllm.errors import SettingError
from edge_mllm.machine.npu import ARCHITECTURES

NPU_PRECISIONS: tuple[NpuPrecision, ...] = get_args(NpuPrecision)
_TARGETS: tuple[NpuTarget, ...] = get_args(NpuTarget)


@dataclass(frozen=True)
class Target:
    """What to write for which NPUs."""

    kind: NpuTarget
    architectures: tuple[str, ...]
    """Compiled for these; without any the graph alone is written, which a device compiles when it loads it."""
    precision: NpuPrecision = "a16w8"


def read_target(text: str, precision: str | None = None) -> Target:
    """The target that a name such as ``qnn-htp:v73,v75`` means.

    Raises:
        SettingError: There is no such NPU, architecture or precision.
    """
    kind, colon, rest = text.partition(":")
    known = next((name for name in _TARGETS if name == kind), None)
    if known is None:
        raise SettingError(f"no target '{text}'; there are {', '.join(_TARGETS)}, and {_TARGETS[0]}:v75")
    architectures = tuple(dict.fromkeys(name.strip() for name in rest.split(","))) if colon else ()
    wrong = [name for name in architectures if name not in ARCHITECTURES]
    if wrong:
        raise SettingError(f"no Hexagon generation '{wrong[0]}'; there are {', '.join(ARCHITECTURES)}")
    chosen = next((name for name in NPU_PRECISIONS if name == (precision or "a16w8")), None)
    if chosen is None:
        raise SettingError(f"no precision '{precision}' for NPUs; there are {', '.join(NPU_PRECISIONS)}")
    return Target(known, architectures, chosen)
