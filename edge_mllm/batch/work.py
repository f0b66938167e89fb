"""What every worker does: a model, opened once, and for each row a record of its answer or of what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.answer.answer import last_answer
from edge_mllm.answer.deciding.settings import DecideSettings
from edge_mllm.answer.messages import said
from edge_mllm.answer.request import Request
from edge_mllm.batch.deciding import RowDecider, given
from edge_mllm.errors import EdgeMLLMError, RowError, SchemaError
from edge_mllm.session.load import load

if TYPE_CHECKING:
    from edge_mllm.answer.answer import Answer
    from edge_mllm.answer.deciding.decision import Decision
    from edge_mllm.batch.rows import Row

Record = dict[str, Any]
"""One line of the output."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is asked of a worker; it can be sent to another process.

    Exactly one of ``request`` and ``decision`` is there.
    """

    model: Path | None
    """As :func:`edge_mllm.load` takes it."""
    loading: Mapping[str, Any]
    """Its options."""
    request: Request | None = None
    decision: DecideSettings | None = None
    large_pages: bool = False
    """Move weights into large pages, which each worker then has for itself."""


class RowAnswerer:
    """Answers rows with a model of its own."""

    def __init__(self, work: Work) -> None:
        """Open the model.

        Raises:
            EdgeMLLMError: As :func:`edge_mllm.load`.
        """
        self._work = work
        self._model = load(work.model, **work.loading)
        if work.large_pages:
            self._model.use_large_pages()
        self._decider = None if work.decision is None else RowDecider(self._model, work.decision)

    def record(self, row: Row) -> Record:
        """The row's record; one with ``error`` where it cannot be answered.

        Raises:
            SchemaError: No row can be held to the JSON schema.
        """
        try:
            if row.problem:
                raise RowError(row.problem)
            found = _decided(self._decider.decide(row)) if self._decider else _answered(self._answer(row))
        except SchemaError:
            raise
        except (EdgeMLLMError, MemoryError) as error:
            return broken(row, str(error) or "out of memory")
        return _about(row) | found

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _answer(self, row: Row) -> Answer:
        assert self._work.request is not None  # noqa: S101  (what is not decided is answered)
        pictures = [given(picture) for picture in row.pictures]
        asked = said(row.prompt, pictures, row.system, None)
        return last_answer(self._model.respond(asked, self._work.request))


def broken(row: Row, reason: str) -> Record:
    """The record of a row that has no answer."""
    return _about(row) | {"error": reason}


def _about(row: Row) -> Record:
    return {
        "id": row.name,
        "row": row.number,
        "key": row.key,
        "images": list(row.labels),
        "prompt": row.prompt,
    }


def _answered(answer: Answer) -> Record:
    document = answer.to_dict()
    kept = ("text", "finish_reason", "usage", "timings", "reduction")
    return {name: document[name] for name in kept if name in document} | {"tiles": _tiles(answer)}


def _decided(decision: Decision) -> Record:
    document = decision.to_dict()
    return {name: document[name] for name in ("best", "options", "usage", "timings")} | {"tiles": _tiles(decision)}


def _tiles(answer: Answer | Decision) -> int:
    return sum(picture.tiles for picture in answer.images)
