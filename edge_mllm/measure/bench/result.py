"""What a benchmark found, as frozen dataclasses; ``schema.json`` describes the same file for other programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_mllm.answer.answer import StageDevice
from edge_mllm.errors import ResultFileError
from edge_mllm.machine.fingerprint import Machine
from edge_mllm.machine.peaks import Peaks
from edge_mllm.machine.sensors.energy import Energy
from edge_mllm.measure.bench.memory import Resident
from edge_mllm.measure.bench.stats import Ratio, Summary, summarise
from edge_mllm.typed_json import FieldError, plain, read_typed

SCHEMA = "edge-mllm-bench/1"

STAGES = ("image_decode", "tiling", "vision", "prefill", "decode")
"""Stages of an answer in order. What they leave of the whole is the residual: prompt, sampling, the program itself."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One point of the grid."""

    model: str
    engine: str | None = None
    """None: the bundle's preferred one."""
    threads: int | None = None
    """None: what suits the machine."""
    image_width: int = 0
    image_height: int = 0
    images: int = 1
    """Pictures in the prompt; 0 for text alone."""
    prompt_tokens: int = 16
    """Tokens of the question, without template and pictures."""
    answer_tokens: int = 64
    """Tokens generated, whatever the model says."""
    mmproj: str | None = None
    """The tower that goes with a GGUF file."""
    prompt_lookup: int = 0
    """Most tokens guessed at a time, see :mod:`edge_mllm.answer.decoding.prompt_lookup`; 0 is off."""
    prompt_weights: bool = True
    """Compute long prompts with the bundle's prompt weights, where it has them (engine onnx)."""
    reduction: str | None = None
    """Which visual tokens go on to the decoder; None: all."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer. Times in seconds of wall clock."""

    stages: dict[str, float]
    """By the names in STAGES."""
    end_to_end: float
    """From the bytes of the pictures to the last token, on a loaded model."""
    ttft: float
    """From the bytes of the pictures to the first token."""
    second_ttft: float | None = None
    """To the first token of another question about the same pictures, asked right after."""
    prefill_tps: float
    decode_tps: float
    reused_tokens: int
    """Prompt tokens that were still in the cache from the answer before."""
    energy: tuple[Energy, ...] = ()
    celsius: float | None = None
    throttled: tuple[str, ...] = ()

    @property
    def residual(self) -> float:
        """Share of end-to-end that no stage accounts for."""
        return (self.end_to_end - sum(self.stages.values())) / self.end_to_end


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the prompt and the answer were made of."""

    tiles: int
    visual_tokens: int
    prompt_tokens: int
    completion_tokens: int
    guessed_tokens: int | None = None
    """Answer tokens guessed by prompt lookup; None where it is off."""
    right_tokens: int | None = None
    """Those of them that the model chose."""


@dataclass(frozen=True, kw_only=True)
class Loads:
    """Opening the model in fresh processes."""

    cold: tuple[float, ...]
    """Right after the model's files were dropped from the page cache; empty where that is not possible."""
    warm: tuple[float, ...]
    start: tuple[float, ...]
    """Starting the interpreter and importing the runtime, not part of the above."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of the process that held the model and nothing else."""

    before: Resident
    """The runtime imported, no model yet."""
    loaded: Resident
    steady: Resident
    """After the last answer."""
    peak_bytes: int | None
    """Largest resident size since the process started."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that was measured."""

    name: str
    sha256: str
    bytes_on_disk: int
    parts: dict[str, str] = field(default_factory=dict)
    """Part -> precision, of a bundle."""
    decode_bytes: int | None = None
    """Bytes of weights read for every token of the answer; None where that is not known."""
    tower_ops: float | None = None
    """Operations of the tower over the pictures of one question; None where the shape is not recorded."""
    random_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How near a run came to what the machine can do at most; None where one of the two is not known."""

    decode_bytes_per_s: float | None
    """Weights read while decoding."""
    decode_of_bandwidth: float | None
    tower_ops_per_s: float | None
    tower_of_int8: float | None
    """Share of the peak of 8-bit products."""
    tower_of_float32: float | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One case, measured."""

    case: Case
    model: Model
    engine: str
    threads: int
    counts: Counts
    loads: Loads
    memory: Memory
    samples: tuple[Sample, ...]
    other_cores: float | None = None
    """Cores that other programs kept busy meanwhile; None where the system does not tell, and in older files."""
    devices: dict[str, StageDevice] = field(default_factory=dict)
    """Stage -> what ran it: ``vision``, ``prefill``, ``decode``; empty in older files."""

    def series(self) -> dict[str, tuple[float, ...]]:
        """Every metric that was measured, with one number a repetition."""
        known = {name: tuple(take(sample) for sample in self.samples) for name, take in METRICS.items()}
        second = [sample.second_ttft for sample in self.samples if sample.second_ttft is not None]
        if len(second) == len(self.samples):
            known["second_ttft"] = tuple(second)
        if self.counts.tiles:
            known["vision_per_tile"] = tuple(seconds / self.counts.tiles for seconds in known["vision"])
        known |= {"load_cold": self.loads.cold, "load_warm": self.loads.warm, "start": self.loads.start}
        for meter in self.samples[0].energy if self.samples else ():
            readings = [r.joules for s in self.samples for r in s.energy if r.meter == meter.meter]
            known[f"joules/{meter.meter}"] = tuple(readings)
        return {name: values for name, values in known.items() if values}

    def summary(self) -> dict[str, Summary]:
        """Every metric that was measured, summarised."""
        return {name: summarise(values) for name, values in self.series().items()}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs whose answers alternated; a ratio below 1 means that ``b`` took less."""

    a: int
    """Index into the runs."""
    b: int
    ratios: dict[str, Ratio]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One result file."""

    schema: str = SCHEMA
    created: str
    """UTC, ISO 8601."""
    machine: Machine
    warmup: int
    repeat: int
    meters_refused: tuple[str, ...] = ()
    """Energy meters that are there but could not be read, with the reason."""
    runs: tuple[Run, ...]
    comparisons: tuple[Comparison, ...] = ()


def _stage(name: str) -> Callable[[Sample], float]:
    return lambda sample: sample.stages[name]


METRICS: dict[str, Callable[[Sample], float]] = {
    **{name: _stage(name) for name in STAGES},
    "end_to_end": lambda sample: sample.end_to_end,
    "ttft": lambda sample: sample.ttft,
    "prefill_tps": lambda sample: sample.prefill_tps,
    "decode_tps": lambda sample: sample.decode_tps,
    "residual": lambda sample: sample.residual,
}
"""Metric -> its value in one sample."""


def shares(run: Run, peaks: Peaks | None) -> Shares:
    """Set a run's medians against the machine's limits."""
    summary = run.summary()
    read = run.model.decode_bytes
    decode = None if read is None else read * summary["decode_tps"].median
    vision = summary["vision"].median if run.counts.tiles else 0.0
    tower = run.model.tower_ops / vision if run.model.tower_ops and vision > 0 else None
    return Shares(
        decode_bytes_per_s=decode,
        decode_of_bandwidth=decode / peaks.read_bytes_per_s if decode and peaks else None,
        tower_ops_per_s=tower,
        tower_of_int8=tower / peaks.int8_ops_per_s if tower and peaks else None,
        tower_of_float32=tower / peaks.float32_ops_per_s if tower and peaks else None,
    )


def result_to_dict(result: Result) -> dict[str, Any]:
    """The JSON object of a result; each run has a ``summary`` and ``shares`` for readers who do not compute."""
    data: dict[str, Any] = plain(dataclasses.asdict(result))
    for run, written in zip(result.runs, data["runs"], strict=True):
        written["summary"] = {name: dataclasses.asdict(summary) for name, summary in run.summary().items()}
        written["shares"] = dataclasses.asdict(shares(run, result.machine.peaks))
    return data


def read_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        ResultFileError: it is not there, not JSON, of another schema, or a field is wrong.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ResultFileError(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise ResultFileError(path, f"it is not valid JSON ({error})") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else None
        raise ResultFileError(path, f"its schema is {found!r}, this release reads {SCHEMA!r}")
    for run in data.get("runs", []):
        if isinstance(run, dict):
            for derived in ("summary", "shares"):
                run.pop(derived, None)
    try:
        result: Result = read_typed(Result, data)
    except FieldError as error:
        raise ResultFileError(path, str(error)) from None
    return result
