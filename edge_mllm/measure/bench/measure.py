"""The grid: every case in fresh processes, with warm-up, repetitions and, for two models, in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_mllm.bundle.gguf_header import decode_bytes
from edge_mllm.errors import EdgeMLLMError, ModelNotFoundError, SettingError
from edge_mllm.machine.fingerprint import fingerprint, model_files
from edge_mllm.machine.others import OtherWork
from edge_mllm.measure.bench.process import WORKER, ModelProcess, Opened, Reply, drop_from_page_cache
from edge_mllm.measure.bench.result import Case, Comparison, Loads, Memory, Model, Result, Run
from edge_mllm.measure.bench.stats import Ratio, ratio_of_medians

Progress = Callable[[str], None]
"""Called with a few words before every step."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often things are done."""

    warmup: int = 1
    repeat: int = 5
    loads: int = 2
    """Cold and warm loads of each case, each in a process of its own; 0 leaves them out."""
    second: bool = True
    """Ask a second question about the same picture after every answer."""
    peaks: bool = True
    """Also measure what the machine can do at most, about a second once."""
    command: tuple[str, ...] = WORKER

    def __post_init__(self) -> None:
        if self.repeat < 1 or self.warmup < 0 or self.loads < 0:
            raise SettingError("repetitions must be at least 1, warm-ups and loads at least 0")


def run_grid(cases: Sequence[Case], plan: Plan, progress: Progress = lambda _: None) -> Result:
    """Measure each case for itself.

    Raises:
        ModelNotFoundError: a model is not there.
        BenchError: a measuring process failed.
    """
    runs: list[Run] = []
    refused: set[str] = set()
    for number, case in enumerate(cases, 1):

        def tell(text: str, label: str = f"case {number}/{len(cases)}") -> None:
            progress(f"{label}: {text}")

        runs += _measure_together([case], plan, tell, refused)
    return _result(runs, plan, refused)


def run_pairs(pairs: Sequence[tuple[Case, Case]], plan: Plan, progress: Progress = lambda _: None) -> Result:
    """Measure two cases at a time, their answers in turns: A B, B A, A B, ...

    What slows the machine down for a while then hits both alike, and the ratio of their medians stands.

    Raises:
        ModelNotFoundError: a model is not there.
        BenchError: a measuring process failed.
    """
    runs: list[Run] = []
    refused: set[str] = set()
    comparisons = []
    for pair in pairs:
        a, b = _measure_together(pair, plan, progress, refused)
        comparisons.append(Comparison(a=len(runs), b=len(runs) + 1, ratios=compare_runs(a, b)))
        runs += [a, b]
    return _result(runs, plan, refused, comparisons)


def compare_runs(a: Run, b: Run) -> dict[str, Ratio]:
    """Ratios of medians b/a for every metric both have with positive samples, paired by repetition."""
    left, right = a.series(), b.series()
    ratios = {}
    for name in left.keys() & right.keys() - {"residual"}:
        if len(left[name]) == len(right[name]) and min(left[name] + right[name]) > 0:
            ratios[name] = ratio_of_medians(left[name], right[name])
    return {name: ratios[name] for name in left if name in ratios}


def describe_model(path: str) -> Model:
    """Name, hash, size and parts of a model on disk.

    Raises:
        ModelNotFoundError: nothing is there.
    """
    from edge_mllm.session.files import open_bundle

    root = Path(path)
    if not root.exists():
        raise ModelNotFoundError(path)
    files = model_files(root)
    if not (root / "bundle.json").is_file():
        return Model(name=root.name, sha256=files.sha256, bytes_on_disk=files.bytes_on_disk)
    spec = open_bundle(root, check_hashes=False).spec
    return Model(
        name=spec.name,
        sha256=files.sha256,
        bytes_on_disk=files.bytes_on_disk,
        parts={name: part.precision for name, part in spec.parts.items()},
        random_weights=spec.source.random_weights,
    )


def weights_per_token(path: Path, engine: str) -> int | None:
    """Bytes of weights that decoding reads for every token; None for a layout that is no bundle."""
    from edge_mllm.session.files import open_bundle

    if not (path / "bundle.json").is_file():
        return None
    bundle = open_bundle(path, check_hashes=False)
    if engine == "gguf":
        return decode_bytes(bundle.file("decoder_gguf"))
    # The token embedding lies in a file of its own, of which one row is read.
    graph = ("decoder_onnx", "decoder_onnx_data")
    return sum(bundle.file(part).stat().st_size for part in graph if part in bundle.spec.parts)


def tower_work(path: Path, case: Case) -> float | None:
    """Operations of the tower over a case's pictures; None without pictures and where the shape is not recorded."""
    from edge_mllm.costs.estimate import picture_tower
    from edge_mllm.costs.facts import facts_of_bundle
    from edge_mllm.session.files import open_bundle

    if not case.images or not (path / "bundle.json").is_file():
        return None
    facts = facts_of_bundle(open_bundle(path, check_hashes=False))
    if facts.shape is None:
        return None
    work = picture_tower(facts, facts.shape.tower, facts.picture(case.image_width, case.image_height))
    return (work.amount + work.attention) * case.images


def _measure_together(cases: Sequence[Case], plan: Plan, progress: Progress, refused: set[str]) -> list[Run]:
    others = OtherWork()
    models = [describe_model(case.model) for case in cases]
    cold: list[list[float]] = [[] for _ in cases]
    warm: list[list[float]] = [[] for _ in cases]
    start: list[list[float]] = [[] for _ in cases]
    for _ in range(plan.loads):
        for i, case in enumerate(cases):
            progress(f"load {models[i].name} cold and warm")
            if drop_from_page_cache(Path(case.model)):
                _load_once(case, plan, cold[i], start[i])
            _load_once(case, plan, warm[i], start[i])
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(ModelProcess(plan.command)) for _ in cases]
        opened = [process.load(case) for process, case in zip(processes, cases, strict=True)]
        replies = _ask_in_turns(processes, plan, progress)
        loads = [Loads(cold=tuple(c), warm=tuple(w), start=tuple(s)) for c, w, s in zip(cold, warm, start, strict=True)]
        refused.update(text for answers in replies for reply in answers for text in reply.refused)
        runs = [_run(cases[i], models[i], loads[i], opened[i], processes[i], replies[i]) for i in range(len(cases))]
    return [dataclasses.replace(run, other_cores=others.cores()) for run in runs]  # our processes have ended


def _load_once(case: Case, plan: Plan, seconds: list[float], start: list[float]) -> None:
    with ModelProcess(plan.command) as process:
        seconds.append(process.load(case).seconds)
        start.append(process.start_seconds)


def _ask_in_turns(processes: Sequence[ModelProcess], plan: Plan, progress: Progress) -> list[list[Reply]]:
    """Replies per process; the order turns around in every round."""
    replies: list[list[Reply]] = [[] for _ in processes]
    for number in range(plan.warmup + plan.repeat):
        measured = number >= plan.warmup
        name = f"answer {number - plan.warmup + 1}/{plan.repeat}" if measured else f"warm-up {number + 1}/{plan.warmup}"
        progress(name)
        order = range(len(processes)) if number % 2 == 0 else reversed(range(len(processes)))
        for i in order:
            reply = processes[i].answer(number, second=plan.second)
            if measured:
                replies[i].append(reply)
    return replies


def _run(case: Case, model: Model, loads: Loads, opened: Opened, process: ModelProcess, replies: list[Reply]) -> Run:
    now = process.memory()
    return Run(
        case=case,
        model=dataclasses.replace(
            model,
            decode_bytes=weights_per_token(Path(case.model), opened.engine),
            tower_ops=tower_work(Path(case.model), case),
        ),
        engine=opened.engine,
        devices=opened.devices,
        threads=opened.threads,
        counts=replies[-1].counts,
        loads=loads,
        memory=Memory(before=opened.before, loaded=opened.loaded, steady=now.steady, peak_bytes=now.peak),
        samples=tuple(reply.sample for reply in replies),
    )


def _result(runs: Sequence[Run], plan: Plan, refused: set[str], comparisons: Sequence[Comparison] = ()) -> Result:
    if not runs:
        raise EdgeMLLMError("there is nothing to measure")
    return Result(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=fingerprint(threads=max(run.threads for run in runs), peaks=plan.peaks),
        warmup=plan.warmup,
        repeat=plan.repeat,
        meters_refused=tuple(sorted(refused)),
        runs=tuple(runs),
        comparisons=tuple(comparisons),
    )
