"""NPUs that a bundle's tower can be written for beside the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from edge_mllm.bundle.spec import NpuPrecision, NpuTarget
from edge_mllm.errors import SettingError
from edge_mllm.machine.npu import ARCHITECTURES, CHIPS

_TARGETS: tuple[NpuTarget, ...] = get_args(NpuTarget)
_ARCHITECTURES: dict[NpuTarget, tuple[str, tuple[str, ...]]] = {
    "qnn-htp": ("Hexagon generation", ARCHITECTURES),
    "rknn": ("Rockchip chip", CHIPS),
}
PRECISIONS: dict[NpuTarget, tuple[NpuPrecision, ...]] = {"qnn-htp": ("a16w8", "a8w8", "fp16"), "rknn": ("fp16", "int8")}
"""Of each kind of NPU, the default first."""


@dataclass(frozen=True)
class Target:
    """What to write for which NPUs."""

    kind: NpuTarget
    architectures: tuple[str, ...]
    """Compiled for these; without any the graph alone is written, which a device compiles when it loads it."""
    precision: NpuPrecision = "a16w8"


def read_targets(names: Sequence[str], precision: str | None = None) -> tuple[Target, ...]:
    """The targets that names such as ``qnn-htp:v73,v75`` and ``rknn:rk3588`` mean.

    Args:
        names: One for each kind of NPU.
        precision: For those that know it; the others have their default.

    Raises:
        SettingError: There is no such NPU, architecture or precision.
    """
    read = [_read(name) for name in names]
    kinds = [kind for kind, _ in read]
    twice = [kind for kind in kinds if kinds.count(kind) > 1]
    if twice:
        raise SettingError(f"`target` names {twice[0]} twice; put its architectures in one, as {twice[0]}:A,B")
    known = tuple(dict.fromkeys(each for kind in kinds for each in PRECISIONS[kind]))
    if precision is not None and precision not in known:
        raise SettingError(f"no precision '{precision}' for NPUs; there are {', '.join(known)}")
    return tuple(Target(kind, architectures, _precision(kind, precision)) for kind, architectures in read)


def _read(text: str) -> tuple[NpuTarget, tuple[str, ...]]:
    kind, colon, rest = text.partition(":")
    known = next((name for name in _TARGETS if name == kind), None)
    if known is None:
        raise SettingError(
            f"no target '{text}'; there are {', '.join(_TARGETS)}, as qnn-htp:v75 or rknn:rk3588 with an architecture"
        )
    architectures = tuple(dict.fromkeys(name.strip() for name in rest.split(","))) if colon else ()
    title, possible = _ARCHITECTURES[known]
    wrong = [name for name in architectures if name not in possible]
    if wrong:
        raise SettingError(f"no {title} '{wrong[0]}'; there are {', '.join(possible)}")
    if known == "rknn" and not architectures:
        raise SettingError(f"`target='rknn'` needs a chip, boards do not compile: rknn:{' or rknn:'.join(CHIPS)}")
    return known, architectures


def _precision(kind: NpuTarget, asked: str | None) -> NpuPrecision:
    return next((name for name in PRECISIONS[kind] if name == asked), PRECISIONS[kind][0])
