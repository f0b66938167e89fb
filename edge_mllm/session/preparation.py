"""Pictures encoded in the background, while the user still types."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from edge_mllm.answer.budget import ImageBudget
from edge_mllm.answer.pictures.encoder import PictureEncoder
from edge_mllm.answer.readers.reader import Reader
from edge_mllm.answer.timings import Stopwatch
from edge_mllm.errors import EdgeMLLMError
from edge_mllm.picture.image import Picture

_log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818  (not a failure)
    """The model was closed before the work was over."""


class Preparation:
    """Work that was started by :meth:`edge_mllm.session.session.Model.prepare`."""

    def __init__(self, work: Callable[[Preparation], None]) -> None:
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), name="edge-mllm-prepare")
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the work has ended, well or not."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the end.

        Raises:
            ImageError: A picture cannot be used. Using it raises the same.
            EngineError: The tower failed.
        """
        self.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ask the work to end at the next tile; :attr:`done` says when it has."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the end, whatever came of the work."""
        self._thread.join()

    def check(self, *_: object) -> None:
        """Called by the work between tiles.

        Raises:
            Stopped: It was asked to end.
        """
        if self._stop.is_set():
            raise Stopped

    def _run(self, work: Callable[[Preparation], None]) -> None:
        try:
            work(self)
        except Stopped:
            _log.debug("preparation stopped")
        except EdgeMLLMError as error:  # using the picture finds it again and raises it
            self._error = error
            _log.debug("preparation failed: %s", error)
        except BaseException as error:  # a thread's exception would be printed and lost
            self._error = error
            _log.warning("preparation failed: %s", error)


class Preparations:
    """All background work of one model."""

    def __init__(self, encoder: PictureEncoder, reader: Reader) -> None:
        self._encoder, self._reader = encoder, reader
        self._running: list[Preparation] = []

    def start(self, pictures: Sequence[Picture], budget: ImageBudget) -> Preparation:
        """Start reading, tiling and encoding pictures."""
        pictures = list(pictures)

        def work(preparation: Preparation) -> None:
            for part in self._reader.pictures(pictures, budget):
                preparation.check()
                self._encoder.prepare(part, Stopwatch(), preparation.check)
            self._encoder.release()

        return self.run(work)

    def run(self, work: Callable[[Preparation], None]) -> Preparation:
        """Start other work that may be stopped by :meth:`close`."""
        self._running = [each for each in self._running if not each.done]
        self._running.append(Preparation(work))
        return self._running[-1]

    def close(self) -> None:
        """Stop what still runs and wait for it."""
        for each in self._running:
            each.stop()
        for each in self._running:
            each.join()
        self._running = []
