"""Pictures to visual embeddings, each computed once: the tower behind its cache."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from edge_mllm.decoders.protocol import FloatArray
from edge_mllm.timings import EmbeddingSource, Stopwatch
from edge_mllm.vision import Encoded, Progress
from edge_mllm.vision_cache import VisionCache

if TYPE_CHECKING:
    from edge_mllm.conversation_picture import ConversationPicture

_MOST_PREPARED = 8


class Tower(Protocol):
    """A vision tower with its projector, loaded on first use."""

    n_embd: int

    @property
    def loaded(self) -> bool:
        """Whether it is in memory."""
        ...

    def load(self) -> None:
        """Load it now; does nothing when it is there."""
        ...

    def encode(
        self, pixels: npt.NDArray[Any], progress: Progress | None = None, *, token_grid: tuple[int, int] | None = None
    ) -> Encoded:
        """Run it over one picture, given as this kind of tower takes it."""
        ...

    def close(self) -> None:
        """Free it; the next :meth:`encode` loads it again."""
        ...


@dataclass(frozen=True)
class Embedded:
    """One picture's embeddings."""

    rows: FloatArray
    """float32 [tokens, n_embd], read-only."""
    source: EmbeddingSource


class PictureEncoder:
    """A tower and a cache. Calls from several threads are served one after the other.

    Args:
        tower: Loaded when the first picture needs it.
        cache: Looked into before the tower is used.
        digest: Gives bytes that stand for the tower and the engine that runs it; called with the first picture.
        low_memory: Free the tower with every :meth:`release`.
    """

    def __init__(
        self, tower: Tower, cache: VisionCache, digest: Callable[[], bytes], *, low_memory: bool = False
    ) -> None:
        self.tower, self.cache = tower, cache
        self._tower_digest, self._low_memory = digest, low_memory
        self._digest = b""
        self._prepared: OrderedDict[bytes, FloatArray] = OrderedDict()
        self._lock = threading.Lock()

    def embed(self, picture: ConversationPicture, watch: Stopwatch) -> Embedded:
        """Embeddings of a picture: prepared before, from the cache, or from the tower.

        Waiting for another thread that is encoding counts as the tower's time.

        Raises:
            EngineError: The tower failed.
            BundleError: The tower cannot be loaded.
        """
        key = self._key(picture)
        with self._turn(watch):
            rows = self._prepared.pop(key, None)
            if rows is not None:
                return Embedded(rows, "prepared")
            return self._embed(key, picture, watch)

    def prepare(self, picture: ConversationPicture, watch: Stopwatch, progress: Progress) -> None:
        """Make the embeddings of a picture now; the next :meth:`embed` of it hands them out, whatever the cache keeps.

        Args:
            picture: To encode.
            watch: For the stages' times.
            progress: Called between tiles; what it raises ends the work.
        """
        key = self._key(picture)
        with self._turn(watch):
            if key not in self._prepared:
                self._prepared[key] = self._embed(key, picture, watch, progress).rows
            while len(self._prepared) > _MOST_PREPARED:
                self._prepared.popitem(last=False)

    def probe(self, pixels: npt.NDArray[Any], token_grid: tuple[int, int] | None, watch: Stopwatch) -> float:
        """Seconds of the tower over pixels that are no picture's; nothing is kept."""
        with self._turn(watch):
            with watch.stage("load"):
                self.tower.load()
            return self.tower.encode(pixels, token_grid=token_grid).seconds

    def release(self) -> None:
        """Pictures are done for now: with ``low_memory``, free the tower."""
        if self._low_memory:
            with self._lock:
                self.tower.close()

    def close(self) -> None:
        """Free the tower and forget what was prepared."""
        with self._lock:
            self.tower.close()
            self._prepared.clear()

    def _key(self, picture: ConversationPicture) -> bytes:
        self._digest = self._digest or self._tower_digest()
        return hashlib.sha256(self._digest + picture.digest).digest()

    @contextmanager
    def _turn(self, watch: Stopwatch) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            with watch.stage("vision"):
                self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def _embed(
        self, key: bytes, picture: ConversationPicture, watch: Stopwatch, progress: Progress | None = None
    ) -> Embedded:
        with watch.stage("preprocess"):
            found = self.cache.get(key, (picture.tokens, self.tower.n_embd))
            if found is not None:
                return Embedded(*found)
            pixels = picture.tower_input()
        with watch.stage("load"):
            self.tower.load()
        with watch.stage("vision"):
            rows = picture.joined(self.tower.encode(pixels, progress, token_grid=picture.token_grid))
        with watch.stage("preprocess"):
            self.cache.put(key, rows)
        return Embedded(rows, "tower")
