"""Rows with options, decided one after the other; pictures that stay the same from row to row are computed once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_mllm.answer.deciding.decider import Decider
from edge_mllm.answer.deciding.settings import DecideSettings, checked_options
from edge_mllm.answer.messages import said
from edge_mllm.errors import EdgeMLLMError, RowError
from edge_mllm.measure.eval.pictures import FilePicture

if TYPE_CHECKING:
    from edge_mllm.answer.deciding.decision import Decision
    from edge_mllm.batch.rows import Row
    from edge_mllm.measure.eval.pictures import Picture
    from edge_mllm.picture.image import Picture as Given
    from edge_mllm.prompt.template import Message
    from edge_mllm.session.session import Model


def given(picture: Picture) -> Given:
    """A picture as a model takes it: the path of a file, so that messages name it, or bytes.

    Raises:
        ImageError: It is not there or not what it claims to be.
    """
    return picture.path if isinstance(picture, FilePicture) else picture.read()


class RowDecider:
    """Decides rows with one model."""

    def __init__(self, model: Model, settings: DecideSettings) -> None:
        self._model, self._settings = model, settings
        self._pictures: tuple[Picture, ...] | None = None
        self._decider: Decider | None = None

    def decide(self, row: Row) -> Decision:
        """Decide one row.

        Raises:
            RowError: It cannot be asked.
            EdgeMLLMError: As :meth:`edge_mllm.Model.decide`.
        """
        question = _question(row)
        return self._about(row).decide(*question)

    def calibrate(self, rows: Sequence[Row]) -> None:
        """Ask rows of the same pictures about empty ones first; a row that cannot be asked says so in its turn."""
        for row in rows if self._settings.calibrate else ():
            with contextlib.suppress(EdgeMLLMError):
                self._about(row).calibrate([_question(row)])

    def _about(self, row: Row) -> Decider:
        if self._decider is None or row.pictures != self._pictures:
            self._decider = None
            self._decider = self._model.decider([given(picture) for picture in row.pictures], self._settings)
            self._pictures = row.pictures
        return self._decider


def _question(row: Row) -> tuple[Sequence[Message], list[str]]:
    if row.problem:
        raise RowError(row.problem)
    if not row.options:
        raise RowError("has no options")
    return said(row.prompt, [b""] * len(row.pictures), row.system, None).messages, checked_options(row.options)
