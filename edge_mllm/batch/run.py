"""A whole batch: rows that have no line yet go to the workers, and their records to the output."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_mllm.batch.output import Output
from edge_mllm.batch.rows import Defaults, Row
from edge_mllm.batch.work import Record, RowAnswerer, Work
from edge_mllm.bundle.gguf_pair import is_gguf
from edge_mllm.decoders.select import choose_engine
from edge_mllm.errors import ResultError
from edge_mllm.measure.eval.fingerprint import model_sha256
from edge_mllm.session.files import find_model, open_files
from edge_mllm.typed_json import plain

if TYPE_CHECKING:
    from edge_mllm.batch.sources import Source
    from edge_mllm.hub.resolve import Wanted

_DECIDING = ("n_ctx", "kv_type", "prompt_weights", "precision", "quant", "vision_engine", "chunk", "tile_batch")
"""Options of loading that change answers."""


@dataclass(frozen=True)
class Progress:
    """How far a batch is."""

    done: int
    """Rows with a line, those of earlier runs included."""
    before: int
    """Those of earlier runs."""
    broken: int
    last: Record | None = None


class Runner(Protocol):
    """Whatever answers rows: this process, others on this machine, a cluster."""

    def answers(self, rows: Iterator[Row]) -> Generator[tuple[Row, Record]]:
        """Rows with their records, in order."""
        ...


class InProcess:
    """One worker: this process."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def answers(self, rows: Iterator[Row]) -> Generator[tuple[Row, Record]]:
        """Rows with their records, in order; the model is opened for the first."""
        answerer: RowAnswerer | None = None
        try:
            for row in rows:
                answerer = answerer or RowAnswerer(self._work)
                yield row, answerer.record(row)
        finally:
            if answerer is not None:
                answerer.close()


def settled(work: Work, wanted: Wanted | None = None) -> Work:
    """The same work with the engine that this machine chooses, which every worker then takes.

    Raises:
        EdgeMLLMError: As :func:`edge_mllm.load`, as far as files tell.
    """
    place = find_model(work.model, wanted)
    engine = "gguf"
    if not is_gguf(place.path):
        files = open_files(place.path, check_hashes=False, precision=work.loading.get("precision"))
        engine = choose_engine(files, work.loading.get("engine"))
    mmproj = work.loading.get("mmproj") or place.mmproj
    chosen = {"engine": engine, "mmproj": mmproj, "layout": None, "quant": None}
    return dataclasses.replace(work, model=place.path, loading={**work.loading, **chosen})


def settings_of(work: Work, defaults: Defaults) -> dict[str, Any]:
    """Everything that decides an answer beside the row itself, as plain JSON values."""
    assert work.model is not None  # noqa: S101  (it was settled)
    mmproj = work.loading.get("mmproj")
    asked = work.request if work.decision is None else work.decision
    loading = {name: value for name in _DECIDING if (value := work.loading.get(name)) is not None}
    return {
        "model": work.model.name,
        "model_sha256": model_sha256(work.model),
        **({"mmproj_sha256": model_sha256(Path(mmproj))} if mmproj else {}),
        "engine": work.loading["engine"],
        **loading,
        "kind": "answers" if work.decision is None else "decisions",
        **_plain(asked),
        "system": defaults.system,
    }


def _plain(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = plain(dataclasses.asdict(value))
    found.pop("processors", None)
    return found


def run_batch(source: Source, output: Output, runner: Runner, tell: Callable[[Progress], None]) -> Progress:
    """Answer every row that has no line yet.

    Args:
        source: The rows.
        output: Where their records go.
        runner: Answers them.
        tell: Called at the beginning and after every row.

    Raises:
        ResultError: A row of the output has the name of one that asks something else.
        EdgeMLLMError: The model cannot be opened, or no row can be answered.
    """
    before = len(output.done)
    state = Progress(before, before, output.broken)
    tell(state)
    if output.finished:
        for row in _missing(source, output):
            reason = f"it was finished, and '{source.name}' has the row {row.name!r} that it does not have"
            raise ResultError(output.path, f"{reason}; choose another `out`")
        return state
    with contextlib.closing(runner.answers(_missing(source, output))) as answers:
        for _, record in answers:
            output.write(record)
            state = Progress(state.done + 1, before, output.broken, record)
            tell(state)
    output.finish()
    return state


def _missing(source: Source, output: Output) -> Iterator[Row]:
    for row in source.rows():
        key = output.done.get(row.name)
        if key is None:
            yield row
        elif key != row.key:
            reason = f"its row {row.name!r} asked something else than that row of '{source.name}' does now"
            raise ResultError(output.path, f"{reason}; choose another `out`")
