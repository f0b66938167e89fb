"""Time from work: a stage is ``amount / rate + attention / attention_rate + overhead * count``, fitted to measurements.

Rates are effective ones (caches, kernels and threads included), so they are fitted and never taken from data sheets.
The idea is the roofline model (Williams, Waterman, Patterson, Communications of the ACM 52(4), 2009) with the roof that
counts for each stage: arithmetic for tower and prefill, memory bandwidth for decoding. Attention has a rate of its own:
its share grows with the square of the tokens. It is counted in scores, pairs of query and key, because scaling,
exponential and rounding of a score cost more here than its products: heads of 64 and of 128 values take nearly the same
time a score. A token of an answer reads the cache too, so its rows count beside the scores: with as many heads of keys
as of queries attention costs twice what it does with one for all. The overhead of prompts and tokens is counted in
values of the residual stream, so a narrow model, whose matrices have little to do for each value, is told slower than
its operations alone say.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mllm.errors import ResultFileError, SettingError
from edge_mllm.machine.peaks import Peaks
from edge_mllm.typed_json import FieldError, plain, read_typed

PROFILE_SCHEMA = "edge-mllm-device/3"
FLOATS = ("f32", "f16", "fp32", "fp16")
"""Recipes whose products are in floats."""


@dataclass(frozen=True)
class Work:
    """What a stage has to do."""

    amount: float
    """Operations with weights, bytes of weights, or pixels, as the stage counts."""
    count: float
    """What the overhead is paid for: runs of the tower, values of the decoder's residual stream."""
    attention: float = 0.0
    """Attention scores, and rows of the cache."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """``seconds = amount / rate + attention / attention_rate + overhead * count``."""

    rate: float
    attention_rate: float
    overhead: float
    observations: int
    """How many the fit rests on."""
    worst: float
    """Largest relative error on those."""

    def seconds(self, work: Work) -> float:
        """Predicted time."""
        return work.amount / self.rate + work.attention / self.attention_rate + self.overhead * work.count


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """What was measured on one kind of machine; written from results of ``edge-mllm bench`` only."""

    schema: str = PROFILE_SCHEMA
    machine: str
    """The id of the machine's fingerprint."""
    processor: str
    memory_bytes: int
    threads: int
    created: str
    lines: dict[str, Line]
    """Stage and precision, such as ``tower/int8``, ``prefill/gguf/q4_0``, ``decode/onnx/int4_b32``, ``picture``."""
    peaks: Peaks | None = None
    """What the machine can do at most; other devices are estimated by the ratio of theirs."""
    source: str = "measured"
    """Where the numbers come from."""
    estimated: bool = False
    """Scaled from another device and not measured."""

    def line(self, name: str) -> Line:
        """The line of a stage.

        Raises:
            SettingError: it was not measured on this device.
        """
        if name not in self.lines:
            known = ", ".join(sorted(self.lines))
            raise SettingError(f"'{name}' was not measured on {self.processor}; there are: {known}")
        return self.lines[name]


def save_profile(profile: DeviceProfile, path: Path) -> None:
    """Write a profile as JSON."""
    data: dict[str, Any] = plain(dataclasses.asdict(profile))
    path.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def load_profile(path: Path) -> DeviceProfile:
    """Read a profile.

    Raises:
        ResultFileError: it is not there or is no profile.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ResultFileError(path, f"it cannot be read ({error})") from error
    if not isinstance(data, dict) or data.get("schema") != PROFILE_SCHEMA:
        raise ResultFileError(path, f"it is no device profile ({PROFILE_SCHEMA})")
    try:
        profile: DeviceProfile = read_typed(DeviceProfile, data)
    except FieldError as error:
        raise ResultFileError(path, str(error)) from None
    return profile
