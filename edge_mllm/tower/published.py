"""A published vision encoder: its own names of inputs, one tile at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm.bundle.spec import VisionSpec
from edge_mllm.errors import EngineError, PartMismatchError
from edge_mllm.machine.memory import trim_heap
from edge_mllm.machine.ort import element_type, open_session
from edge_mllm.picture.tile_plan import Grid
from edge_mllm.tower.protocol import Encoded, Progress

_PIXELS, _MASK, _FEATURES = "pixel_values", "pixel_attention_mask", "image_features"
_GRIDS = {"image_grid_thw", "grid_thw"}
"""What the input with the numbers of patches may be called; transformers.js knows both names."""
_TILED, _BATCHED, _PATCHES = 5, 4, 2
"""Axes of ``pixel_values``: [pictures, tiles, 3, height, width], [tiles, 3, height, width], [patches, values]."""


class PublishedTower:
    """A tower that is loaded on first use; see :class:`edge_mllm.tower.protocol.Tower`.

    Args:
        path: The ONNX file.
        spec: What a tile is.
        row_width: Width of the decoder's rows.
        threads: Threads of one run.
        newline: float32 [n_embd], what ends the rows of stitched tiles.
    """

    def __init__(
        self, path: Path, spec: VisionSpec, row_width: int, threads: int, newline: FloatArray | None = None
    ) -> None:
        self.path, self.spec, self.row_width, self._threads = path, spec, row_width, threads
        self._newline = newline
        self._session: Any = None

    tile_tokens = None
    """Several tiles are one run here."""
    apart = False

    @property
    def newline(self) -> FloatArray | None:
        """As :class:`edge_mllm.tower.protocol.Tower` says."""
        return self._newline

    @property
    def loaded(self) -> bool:
        """Whether the session is in memory."""
        return self._session is not None

    def load(self) -> None:
        """Create the session now; does nothing when it is there.

        Raises:
            EngineError: ONNX Runtime cannot load the file, or it is no encoder of this kind.
        """
        if self._session is not None:
            return
        session = open_session(self.path, self._threads)
        inputs = {node.name: node for node in session.get_inputs()}
        outputs = [node.name for node in session.get_outputs()]
        rank = len(inputs[_PIXELS].shape) if _PIXELS in inputs else 0
        expected = {_TILED: {_PIXELS, _MASK}, _BATCHED: {_PIXELS}, _PATCHES: {_PIXELS, *_GRIDS}}.get(rank, set())
        if not inputs.keys() <= expected or _FEATURES not in outputs or (rank == _PATCHES) != bool(self.spec.patches):
            found = f"{', '.join(inputs)} to {', '.join(outputs)}"
            raise EngineError(f"{self.path.name} is no vision encoder that can be run ({found})")
        self._rank, self._inputs = rank, inputs
        self._type = element_type(inputs[_PIXELS], self.path)
        self._session = session

    def encode(
        self, pixels: npt.NDArray[Any], progress: Progress | None = None, *, grids: Sequence[Grid] | None = None
    ) -> Encoded:
        """Run the tower over one picture.

        Args:
            pixels: float32 [tiles, 3, tile height, tile width], or packed patches [patches, values of a patch].
            progress: Called after every tile.
            grids: Rows and columns of visual tokens of the picture; only for a tower that takes any size.

        Raises:
            EngineError: The run failed.
            PartMismatchError: The embeddings have another shape than the decoder needs.
        """
        self.load()
        start = time.perf_counter()
        if self.spec.patches is not None:
            rows, cols = grids[0] if grids else (0, 0)
            merge = self.spec.patches.merge
            grid = np.array([[1, rows * merge, cols * merge]], np.int64)
            feeds = {_PIXELS: np.asarray(pixels, self._type), **dict.fromkeys(_GRIDS & self._inputs.keys(), grid)}
            embeddings = self._run(feeds, rows * cols)[None]
        else:
            parts = []
            for number in range(len(pixels)):
                parts.append(self._run(self._tile(pixels[number : number + 1]), self.spec.tokens_per_tile))
                if progress is not None:
                    progress(number + 1, len(pixels))
            embeddings = np.stack(parts)
        if not np.isfinite(embeddings).all():
            raise EngineError(f"{self.path.name} gave values that are not numbers; take another `precision`")
        return Encoded(embeddings, time.perf_counter() - start, self._newline)

    def close(self) -> None:
        """Free the session; the next :meth:`encode` loads it again."""
        if self._session is not None:
            self._session = None
            trim_heap()

    def _tile(self, pixels: FloatArray) -> dict[str, npt.NDArray[Any]]:
        """Feeds of one tile [1, 3, height, width]."""
        values = np.asarray(pixels, self._type)
        if self._rank == _BATCHED:
            return {_PIXELS: values}
        feeds: dict[str, npt.NDArray[Any]] = {_PIXELS: values[None]}
        if _MASK in self._inputs:
            kind = np.bool_ if self._inputs[_MASK].type == "tensor(bool)" else np.int64
            feeds[_MASK] = np.ones((1, 1, *pixels.shape[2:]), kind)
        return feeds

    def _run(self, feeds: dict[str, npt.NDArray[Any]], tokens: int) -> FloatArray:
        try:
            (result,) = self._session.run([_FEATURES], feeds)
        except Exception as error:  # the classes of ONNX Runtime share no base but this
            raise EngineError(f"{self.path.name} failed ({' '.join(str(error).split())[:200]})") from error
        if result.shape[-1] != self.row_width or result.size != tokens * self.row_width:
            reason = f"{self.path.name} gave {list(result.shape)}, the decoder needs {tokens} rows of {self.row_width}"
            raise PartMismatchError(self.path.parent, reason)
        rows: FloatArray = result.reshape(tokens, self.row_width).astype(np.float32)
        return rows
