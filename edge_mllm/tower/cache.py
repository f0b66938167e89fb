"""Visual embeddings that need not be computed again, in memory and on disk.

An entry is found by what the picture *is*, not by where it lay: the SHA-256 of its pixels, of the image processing
with the tiling in force, and of the tower that encodes it. A file that changes under the same name is another picture.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Literal

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm.bundle.spec import BundleSpec, ImageSpec, VisionSpec
from edge_mllm.bundle.tilers import Tiler
from edge_mllm.errors import SettingError
from edge_mllm.picture.tiling import Pixels, size_of
from edge_mllm.tower.engines import engine_label
from edge_mllm.tower.placement import Placement
from edge_mllm.tower.store import EmbeddingStore

CacheHit = Literal["memory", "disk"]
DEFAULT_BYTES = 64 << 20
_ROWS = 64


def picture_digest(rgb: Pixels, image: ImageSpec, vision: VisionSpec, tiler: Tiler) -> bytes:
    """32 bytes, equal for two pictures exactly when their pixels and what is done to them before the tower are.

    Args:
        rgb: uint8 [height, width, 3] or an RGB image.
        image: The model's image processing.
        vision: What the tower takes.
        tiler: The one in force, which a budget may have made coarser than the model's own.
    """
    width, height = size_of(rgb)
    digest = hashlib.sha256(f"{(height, width, 3)} {image} {vision} {tiler}".encode())
    if isinstance(rgb, np.ndarray):
        digest.update(np.ascontiguousarray(rgb).data)
        return digest.digest()
    for top in range(0, height, _ROWS):  # an array of the whole would be another copy
        digest.update(rgb.crop((0, top, width, min(top + _ROWS, height))).tobytes())
    return digest.digest()


def tower_digest(spec: BundleSpec, place: Placement | None = None, tile_batch: int = 1) -> bytes:
    """32 bytes that stand for the tower: files and precision, what runs it in which version, and the tiles of one run.

    A tower that scales activations per run gives a tile other embeddings beside other tiles.
    """
    place = place or Placement()
    part, newline = spec.parts[place.part], spec.parts.get("newline")
    engine = place.label or engine_label(place.engine)
    text = f"{part.sha256.lower()} {part.precision} {engine} {spec.decoder.row_width}"
    if tile_batch != 1:
        text += f" {tile_batch} tiles"
    if newline is not None:
        text += f" {newline.sha256.lower()}"
    return hashlib.sha256(text.encode()).digest()


class VisionCache:
    """Embeddings by key. Serves several threads; entries are read-only arrays.

    Args:
        max_bytes: Of the entries in memory; the ones not used for longest go first. 0 keeps nothing in memory.
        store: Where entries also go to disk; None for memory alone.

    Raises:
        SettingError: ``max_bytes`` is negative.
    """

    def __init__(self, *, max_bytes: int = DEFAULT_BYTES, store: EmbeddingStore | None = None) -> None:
        if max_bytes < 0:
            raise SettingError(f"the cache's size is {max_bytes} bytes; it must not be negative")
        self.max_bytes, self._store = max_bytes, store
        self._entries: OrderedDict[bytes, FloatArray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the entries in memory."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, shape: tuple[int, int]) -> tuple[FloatArray, CacheHit] | None:
        """Embeddings float32 [tokens, row_width] and where they were found, or None.

        Args:
            key: 32 bytes.
            shape: What the caller needs; an entry of another shape is none.
        """
        with self._lock:
            rows = self._entries.get(key)
            if rows is not None and rows.shape == shape:
                self._entries.move_to_end(key)
                return rows, "memory"
        if self._store is None:
            return None
        rows = self._store.get(key, shape)
        if rows is None:
            return None
        self._remember(key, rows)
        return rows, "disk"

    def put(self, key: bytes, rows: FloatArray) -> None:
        """Keep embeddings float32 [tokens, row_width]; the array must not be changed afterwards."""
        self._remember(key, rows)
        if self._store is not None:
            self._store.put(key, rows)

    def clear(self) -> None:
        """Forget the entries in memory."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _remember(self, key: bytes, rows: FloatArray) -> None:
        rows.setflags(write=False)
        with self._lock:
            old = self._entries.pop(key, None)
            self._bytes -= old.nbytes if old is not None else 0
            if rows.nbytes > self.max_bytes:
                return
            self._entries[key] = rows
            self._bytes += rows.nbytes
            while self._bytes > self.max_bytes:
                _, dropped = self._entries.popitem(last=False)
                self._bytes -= dropped.nbytes
