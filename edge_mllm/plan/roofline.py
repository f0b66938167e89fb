"""Time from work: every stage is ``work / rate + overhead * count``, with rates fitted to measurements of a device.

Rates are effective ones (caches, kernels and threads included), so they are fitted and never taken from data sheets.
The idea is the roofline model (Williams, Waterman, Patterson, Communications of the ACM 52(4), 2009) with the roof that
counts for each stage: arithmetic for tower and prefill, memory bandwidth for decoding.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_mllm.bench.peaks import Peaks
from edge_mllm.errors import ResultFileError, SettingError
from edge_mllm.typed_json import FieldError, plain, read_typed

PROFILE_SCHEMA = "edge-mllm-device/1"


@dataclass(frozen=True)
class Observation:
    """A stage that was measured once."""

    work: float
    """Operations or bytes, as the stage counts."""
    count: float
    """What the overhead is paid for: tiles, prompts, tokens."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """``seconds = work / rate + overhead * count``."""

    rate: float
    overhead: float
    observations: int
    """How many the fit rests on."""
    worst: float
    """Largest relative error on those."""

    def seconds(self, work: float, count: float) -> float:
        """Predicted time."""
        return work / self.rate + self.overhead * count


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


def fit(observations: Sequence[Observation]) -> Line:
    """Fit a line with the smallest relative errors, both terms at or above zero.

    With observations of one kind of work alone (all of the same work per count) the two terms cannot be told apart; the
    overhead is then zero.

    Raises:
        SettingError: there are no observations, or one has no work or took no time.
    """
    if not observations or any(o.work <= 0 or o.seconds <= 0 for o in observations):
        raise SettingError("a fit needs observations with work and time")
    seconds = np.array([o.seconds for o in observations])
    columns = np.array([[o.work, o.count] for o in observations]) / seconds[:, None]
    scale = columns.max(axis=0)
    scale[scale == 0] = 1.0
    scaled = columns / scale
    terms = np.zeros(2)
    if np.linalg.matrix_rank(scaled, tol=1e-3) == 2:
        terms = np.linalg.lstsq(scaled, np.ones(len(seconds)), rcond=None)[0]
    if terms[0] <= 0 or terms[1] < 0:
        work = scaled[:, 0]
        terms = np.array([work.sum() / (work @ work), 0.0])
    inverse, overhead = (float(term) for term in terms / scale)
    errors = np.abs(columns @ np.array([inverse, overhead]) - 1)
    return Line(rate=1 / inverse, overhead=overhead, observations=len(seconds), worst=float(errors.max()))


def fit_all(observations: Mapping[str, Iterable[Observation]]) -> dict[str, Line]:
    """Fit every stage."""
    return {name: fit(list(found)) for name, found in observations.items()}


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
