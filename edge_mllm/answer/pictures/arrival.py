"""Embeddings on their way from a tower that leaves our threads alone, while the decoder computes what it has.

A thread encodes pictures one after the other and gives every tile's rows when they are there. The decoder waits before
each of its runs for the rows of that run: what it computes, and in which pieces, is the same as if all had been there.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from edge_mllm.answer.pictures.encoder import PictureEncoder
from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.answer.timings import Stopwatch
from edge_mllm.arrays import FloatArray
from edge_mllm.interruption import between_steps

_LOOK_S = 0.05
"""How often a waiting answer looks whether it is to end."""


class _StoppedError(Exception):
    """Nobody waits any longer."""


class Arrival:
    """Pictures being encoded in a thread of their own, for the time of a ``with`` block.

    Args:
        encoder: With a tower that is :attr:`edge_mllm.tower.protocol.Tower.apart`.
        pictures: Whose rows go to the decoder as the tower gives them, without a reduction.
        watch: Of the answer; what it waits for rows counts as the tower's time, or as loading it.
    """

    def __init__(self, encoder: PictureEncoder, pictures: Sequence[ConversationPicture], watch: Stopwatch) -> None:
        self._encoder, self._pictures, self._watch = encoder, pictures, watch
        self._own_watch = Stopwatch()
        width = encoder.tower.row_width
        self._rows = {picture.key: np.empty((picture.tokens, width), np.float32) for picture in pictures}
        self._there = dict.fromkeys(self._rows, 0)
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="edge-mllm-tower", daemon=True)

    def __enter__(self) -> Arrival:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the work, after the tile that the tower is at."""
        with self._changed:
            self._stopped = kind is not None
        self._thread.join()
        for picture in self._pictures:
            picture.watch = self._watch
        self._watch.move("vision", "load", self._own_watch.load_s)

    def rows(self, picture: ConversationPicture) -> FloatArray:
        """Where a picture's rows appear: float32 [tokens, row_width], not to be read before :meth:`wait`."""
        return self._rows[picture.key]

    def wait(self, key: bytes, count: int) -> None:
        """Wait until a picture's first ``count`` rows are there.

        Raises:
            EngineError: The tower failed.
            BundleError: It cannot be loaded.
        """
        with self._changed:
            if self._there[key] >= count and self._error is None:
                return
        with self._watch.stage("vision"), self._changed:
            while self._there[key] < count:
                if self._error is not None:
                    raise self._error
                self._changed.wait(_LOOK_S)
                between_steps()

    def _work(self) -> None:
        try:
            for picture in self._pictures:
                rows = self._encoder.embeddings(picture, self._own_watch, _Gift(self, picture.key))
                self._put(picture.key, 0, rows)
        except _StoppedError:
            return
        except BaseException as error:  # whatever it is, the thread that waits must hear of it
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _put(self, key: bytes, start: int, rows: FloatArray) -> None:
        end = start + len(rows)
        self._rows[key][start:end] = rows
        with self._changed:
            self._there[key] = max(self._there[key], end)
            self._changed.notify_all()
            if self._stopped:
                raise _StoppedError


class _Gift:
    """Takes tiles of one picture, in order."""

    def __init__(self, arrival: Arrival, key: bytes) -> None:
        self._arrival, self._key = arrival, key

    def __call__(self, place: int, rows: FloatArray) -> None:
        self._arrival._put(self._key, place * len(rows), rows)
