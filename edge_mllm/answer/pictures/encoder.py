"""Pictures to visual embeddings, each computed once: the tower behind its cache."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.answer.timings import EmbeddingSource, Stopwatch
from edge_mllm.arrays import FloatArray
from edge_mllm.picture.reduction.thinning import thin_rows
from edge_mllm.picture.tile_plan import Grid
from edge_mllm.tower.cache import VisionCache
from edge_mllm.tower.protocol import Encoded, Progress, Tower

_MOST_PREPARED = 8
Give = Callable[[int, FloatArray], None]
"""Called with a tile's place and its rows float32 [tokens, row_width] when they are there, in order."""


@dataclass(frozen=True)
class Embedded:
    """One picture's embeddings."""

    rows: FloatArray
    """float32 [tokens, row_width], read-only."""
    source: EmbeddingSource


def encoded_rows(
    tower: Tower,
    picture: ConversationPicture,
    pixels: npt.NDArray[Any] | None = None,
    progress: Progress | None = None,
) -> FloatArray:
    """What a tower makes of a picture: float32 [tokens, row_width], as the decoder takes it. Nothing is kept.

    Args:
        tower: Any that takes this kind of pictures.
        picture: With its pixels.
        pixels: What the tower gets, where it is there already.
        progress: Called between tiles.
    """
    given = picture.tower_input() if pixels is None else pixels
    return picture.joined(tower.encode(given, progress, grids=picture.grids))


class _Tiles:
    """The tiles of one picture: each is run once, whichever picture or place shows it.

    Args:
        keys: Of every tile, 32 bytes each.
        found: Key -> embeddings float32 [tokens, row_width] that are there.
    """

    def __init__(self, keys: list[bytes], found: dict[bytes, FloatArray]) -> None:
        self._keys, self._rows = keys, found
        self.missing = [keys.index(key) for key in dict.fromkeys(keys) if key not in found]
        self.made: dict[bytes, FloatArray] = {}
        """What was made, by key."""

    def encoded(self, tower: Tower, pixels: npt.NDArray[np.float32], tell: Progress) -> Encoded:
        """Embeddings of all tiles; those that are missing are run, bit for bit as alone."""
        seconds, there = 0.0, len(self._keys) - len(self.missing)
        if self.missing:
            new = pixels[self.missing] if there else pixels
            found = tower.encode(new, lambda done, _: tell(done + there, len(self._keys)))
            seconds = found.seconds
            made = zip(self.missing, found.embeddings, strict=True)
            self.made = {self._keys[place]: embeddings.copy() for place, embeddings in made}
        return self._joined(seconds, tower)

    def encoded_in_order(self, tower: Tower, pixels: npt.NDArray[np.float32], tell: Progress, give: Give) -> Encoded:
        """The same, and every tile's rows are given away when they are there."""
        seconds, done = 0.0, len(self._keys) - len(self.missing)
        for place, key in enumerate(self._keys):
            if place in self.missing:
                found = tower.encode(pixels[place : place + 1])
                self.made[key] = found.embeddings[0].copy()
                seconds, done = seconds + found.seconds, done + 1
                tell(done, len(self._keys))
            give(place, self.made[key] if key in self.made else self._rows[key])
        return self._joined(seconds, tower)

    def _joined(self, seconds: float, tower: Tower) -> Encoded:
        rows = self._rows | self.made
        return Encoded(np.stack([rows[key] for key in self._keys]), seconds, tower.newline)


class PictureEncoder:
    """A tower and a cache. Calls from several threads are served one after the other.

    Args:
        tower: Loaded when the first picture needs it.
        cache: Looked into before the tower is used.
        digest: Gives bytes that stand for the tower and the engine that runs it; called with the first picture.
        low_memory: Free the tower with every :meth:`release`.
        settle: Decides, with the first picture, what runs the tower; called before ``digest``.
    """

    def __init__(
        self,
        tower: Tower,
        cache: VisionCache,
        digest: Callable[[], bytes],
        *,
        low_memory: bool = False,
        settle: Callable[[ConversationPicture], None] | None = None,
    ) -> None:
        self.tower, self.cache = tower, cache
        self._tower_digest, self._low_memory, self._settle = digest, low_memory, settle
        self.progress: Progress | None = None
        """Told before and between the tiles of every picture that is encoded, from the thread that does it."""
        self._digest = b""
        self._prepared: OrderedDict[bytes, FloatArray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def apart(self) -> bool:
        """Whether the decoder may work while pictures are encoded: the tower leaves it the threads, and may stay."""
        return self.tower.apart and not self._low_memory

    def embeddings(self, picture: ConversationPicture, watch: Stopwatch, give: Give | None = None) -> FloatArray:
        """Visual embeddings float32 [tokens, row_width], read-only: the picture's own, prepared, cached, or made now.

        Waiting for another thread that is encoding counts as the tower's time.

        Args:
            picture: To encode.
            watch: For the stages' times.
            give: Told each tile's rows while further ones are made, where a picture's rows are its tiles' in order.

        Raises:
            EngineError: The tower failed.
            BundleError: The tower cannot be loaded.
        """
        if not picture.encoded:
            embedded = self._embed_once(picture, watch, give)
            picture.keep(embedded.rows, embedded.source)
        elif watch is not picture.watch:
            picture.source = "memory"
        picture.watch = watch
        return picture.rows

    def decoder_rows(self, picture: ConversationPicture, watch: Stopwatch) -> FloatArray:
        """What the decoder gets: float32 [prompt_tokens, row_width]; ``kept`` must have been decided."""
        rows = self.embeddings(picture, watch)
        if picture.thinned is None:
            return rows
        assert picture.kept is not None  # noqa: S101  (the pipeline decides first)
        with watch.stage("reduction"):
            return thin_rows(picture.thinned, picture.areas, rows, picture.kept)

    def _embed_once(self, picture: ConversationPicture, watch: Stopwatch, give: Give | None) -> Embedded:
        key = self._key(picture, watch)
        with self._turn(watch):
            rows = self._prepared.pop(key, None)
            if rows is not None:
                return Embedded(rows, "prepared")
            return self._embed(key, picture, watch, give=give)

    def prepare(self, picture: ConversationPicture, watch: Stopwatch, progress: Progress) -> None:
        """Make the embeddings of a picture now; the next :meth:`embed` of it hands them out, whatever the cache keeps.

        Args:
            picture: To encode.
            watch: For the stages' times.
            progress: Called between tiles; what it raises ends the work.
        """
        key = self._key(picture, watch)
        with self._turn(watch):
            if key not in self._prepared:
                self._prepared[key] = self._embed(key, picture, watch, progress).rows
            while len(self._prepared) > _MOST_PREPARED:
                self._prepared.popitem(last=False)

    def probe(self, pixels: npt.NDArray[Any], grids: Sequence[Grid] | None, watch: Stopwatch) -> float:
        """Seconds of the tower over pixels that are no picture's; nothing is kept."""
        with self._turn(watch):
            with watch.stage("load"):
                self.tower.load()
            return self.tower.encode(pixels, grids=grids).seconds

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

    def _key(self, picture: ConversationPicture, watch: Stopwatch) -> bytes:
        if not self._digest:
            if self._settle is not None:
                with watch.stage("load"):
                    self._settle(picture)
            self._digest = self._tower_digest()
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
        self,
        key: bytes,
        picture: ConversationPicture,
        watch: Stopwatch,
        progress: Progress | None = None,
        give: Give | None = None,
    ) -> Embedded:
        with watch.stage("preprocess"):
            hit = self.cache.get(key, (picture.tokens, self.tower.row_width))
            if hit is not None:
                return Embedded(*hit)
            pixels = picture.tower_input()
            tiles = self._tiles(pixels)
        tell = self._telling(progress)
        tell(0, picture.usage.tiles)
        with watch.stage("load"):
            self.tower.load()
        with watch.stage("vision"):
            if tiles is None:
                rows = encoded_rows(self.tower, picture, pixels, tell)
            else:
                if give is not None and picture.tiles_in_order:
                    found = tiles.encoded_in_order(self.tower, pixels, tell, give)
                else:
                    found = tiles.encoded(self.tower, pixels, tell)
                rows = picture.joined(found)
                picture.tiles_reused = len(pixels) - len(tiles.missing)
        with watch.stage("preprocess"):
            for made, embeddings in {} if tiles is None else tiles.made.items():
                self.cache.put(made, embeddings)
            self.cache.put(key, rows)
        return Embedded(rows, "tower")

    def _tiles(self, pixels: npt.NDArray[np.float32]) -> _Tiles | None:
        """What the cache knows of a picture's tiles; None where a tile is the picture, or depends on its neighbours."""
        tokens = self.tower.tile_tokens
        if tokens is None or len(pixels) == 1:
            return None
        keys = [hashlib.sha256(self._digest + b"tile" + np.ascontiguousarray(tile).data).digest() for tile in pixels]
        hits = {key: self.cache.get(key, (tokens, self.tower.row_width)) for key in dict.fromkeys(keys)}
        return _Tiles(keys, {key: hit[0] for key, hit in hits.items() if hit is not None})

    def _telling(self, progress: Progress | None) -> Progress:
        """What tells a caller and whoever watches, who may come while a picture is being encoded."""

        def tell(done: int, total: int) -> None:
            for each in (progress, self.progress):
                if each is not None:
                    each(done, total)

        return tell
