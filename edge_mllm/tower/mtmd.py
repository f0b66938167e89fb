"""llama.cpp's multimodal library: pictures in, visual embeddings and the marks around them out.

Whatever is handed in has been checked: libmtmd, as all of llama.cpp, ends the process when an internal check fails.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray, IntArray, RgbArray
from edge_mllm.errors import EngineError, PartMismatchError, PromptError
from edge_mllm.machine.llama import library
from edge_mllm.machine.native import NativeHandle
from edge_mllm.picture.tile_plan import Grid
from edge_mllm.tower.protocol import Encoded, Progress

MARKER = "<__media__>"
_TEXT, _IMAGE = 0, 1


@dataclass(frozen=True)
class VisualRun:
    """Visual tokens without a mark between them."""

    count: int
    grid: tuple[int, int] | None
    """Rows and columns, for 2-D position schemes."""


@dataclass(frozen=True)
class PictureLayout:
    """What one picture becomes in a prompt: marks as token ids int64 [n], and visual tokens."""

    parts: tuple[IntArray | VisualRun, ...]

    @property
    def runs(self) -> list[VisualRun]:
        """The visual tokens alone."""
        return [part for part in self.parts if isinstance(part, VisualRun)]

    @property
    def tokens(self) -> int:
        """Number of visual tokens."""
        return sum(run.count for run in self.runs)


class MtmdTower:
    """A tower in libmtmd; see :class:`edge_mllm.tower.protocol.Tower`. It is loaded at once: only it can count tokens.

    Args:
        mmproj: The file, checked by :func:`edge_mllm.bundle.gguf_pair.read_pair`.
        model: The language model, in llama.cpp.
        row_width: Width of the language model's rows.
        threads: Threads of one run.
        gridded: Whether the language model places a picture's tokens in rows and columns where it can.

    Raises:
        EngineError: libmtmd cannot load the file, or has another marker.
        PartMismatchError: Tower and language model have other widths.
    """

    tile_tokens = newline = None
    apart = False

    def __init__(
        self, mmproj: Path, model: NativeHandle, row_width: int, threads: int, *, gridded: bool = True
    ) -> None:
        self._api = _mtmd()
        self.path, self.row_width = mmproj, row_width
        self._n_vocab = library().api.llama_vocab_n_tokens(library().api.llama_model_get_vocab(model.address))
        options = self._api.mtmd_context_params_default()
        options.use_gpu, options.n_threads, options.print_timings, options.warmup = False, threads, False, False
        handle = self._api.mtmd_init_from_file(str(mmproj).encode(), model.address, options)
        if not handle:
            failure = library().failure(f"libmtmd cannot load {mmproj.name}")
            if "mismatch" in str(failure):  # it compares the widths; older files do not say theirs in the metadata
                raise PartMismatchError(mmproj, f"it is not the tower of this language model ({failure})")
            raise failure
        self._native = NativeHandle(handle, self._api.mtmd_free, model)
        marker = self._api.mtmd_get_marker(self._handle)
        if marker != MARKER.encode() or not self._api.mtmd_support_vision(self._handle):
            self.close()
            raise EngineError(f"libmtmd takes no pictures with {mmproj.name}, or marks them as {marker!r}")
        self._two_axes = gridded and bool(self._api.mtmd_decode_use_mrope(self._handle))

    @property
    def _handle(self) -> Any:
        return self._native.address

    @property
    def bidirectional(self) -> bool:
        """Whether a picture's tokens see each other in both directions."""
        return bool(self._api.mtmd_decode_use_non_causal(self._handle, None))

    @property
    def loaded(self) -> bool:
        """It is there until it is closed."""
        return self._native.open

    def load(self) -> None:
        """It is there."""

    def layout(self, rgb: RgbArray) -> PictureLayout:
        """Cut a picture uint8 [height, width, 3] without encoding it.

        Raises:
            PartMismatchError: The language model's vocabulary lacks a mark that libmtmd writes around pictures.
        """
        with self._chunks(rgb) as chunks:
            return PictureLayout(tuple(self._part(chunk) for chunk in chunks))

    def encode(
        self,
        pixels: npt.NDArray[Any],
        progress: Progress | None = None,
        *,
        grids: Sequence[Grid] | None = None,  # noqa: ARG002  (as every tower)
    ) -> Encoded:
        """Cut and encode a picture uint8 [height, width, 3]; ``grids`` are not needed.

        Raises:
            EngineError: libmtmd failed.
        """
        start = time.perf_counter()
        rows: list[FloatArray] = []
        with self._chunks(pixels) as chunks:
            images = [chunk for chunk in chunks if self._api.mtmd_input_chunk_get_type(chunk) == _IMAGE]
            for number, chunk in enumerate(images, 1):
                rows.append(self._encode(chunk))
                if progress is not None:
                    progress(number, len(images))
        embeddings = np.concatenate(rows)
        if not np.isfinite(embeddings).all():
            raise EngineError(f"{self.path.name} gave values that are not numbers")
        return Encoded(embeddings[None], time.perf_counter() - start)

    def close(self) -> None:
        """Free it; the object is unusable afterwards."""
        self._native.close()

    @contextmanager
    def _chunks(self, rgb: npt.NDArray[Any]) -> Iterator[list[Any]]:
        """What libmtmd makes of one picture; valid inside the block."""
        data = np.ascontiguousarray(rgb, np.uint8)
        height, width = data.shape[:2]
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        text = self._api.mtmd_input_text(MARKER.encode(), len(MARKER), False, True)
        bitmap, found = self._api.mtmd_bitmap_init(width, height, pointer), self._api.mtmd_input_chunks_init()
        try:
            bitmaps = (self._api.mtmd_bitmap_p_ctypes * 1)(bitmap)
            if self._api.mtmd_tokenize(self._handle, found, ctypes.byref(text), bitmaps, 1) != 0:
                raise library().failure(f"libmtmd cannot cut a picture of {width}x{height} pixels")
            count = self._api.mtmd_input_chunks_size(found)
            yield [self._api.mtmd_input_chunks_get(found, index) for index in range(count)]
        finally:
            self._api.mtmd_input_chunks_free(found)
            self._api.mtmd_bitmap_free(bitmap)

    def _part(self, chunk: Any) -> IntArray | VisualRun:
        kind = self._api.mtmd_input_chunk_get_type(chunk)
        if kind == _TEXT:
            length = ctypes.c_size_t()
            tokens = self._api.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(length))
            ids = np.array(tokens[: length.value], np.int64)
            if len(ids) and (ids.min() < 0 or ids.max() >= self._n_vocab):
                reason = "the language model's vocabulary lacks a mark that goes around its pictures"
                raise PartMismatchError(self.path, f"{reason}; they do not belong together")
            return ids
        if kind != _IMAGE:
            raise EngineError("libmtmd made something else than text and pictures")
        count = int(self._api.mtmd_input_chunk_get_n_tokens(chunk))
        if not self._two_axes:
            return VisualRun(count, None)
        tokens = self._api.mtmd_input_chunk_get_tokens_image(chunk)
        rows, columns = self._api.mtmd_image_tokens_get_ny(tokens), self._api.mtmd_image_tokens_get_nx(tokens)
        if rows * columns != count:
            raise EngineError("this model's positions of visual tokens are not supported; run it in llama.cpp itself")
        return VisualRun(count, (rows, columns))

    def _encode(self, chunk: Any) -> FloatArray:
        if self._api.mtmd_encode_chunk(self._handle, chunk) != 0:
            raise library().failure("libmtmd cannot encode a picture")
        count = int(self._api.mtmd_input_chunk_get_n_tokens(chunk))
        view = np.ctypeslib.as_array(self._api.mtmd_get_output_embd(self._handle), (count, self.row_width))
        return np.array(view, np.float32)


def _mtmd() -> Any:
    """The bindings, with their log where llama.cpp's goes."""
    log = library().callback
    try:
        from llama_cpp import mtmd_cpp
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise EngineError(f"this llama-cpp-python has no libmtmd: {error}") from error
    mtmd_cpp.mtmd_log_set(log, ctypes.c_void_p(0))
    mtmd_cpp.mtmd_helper_log_set(log, ctypes.c_void_p(0))
    return mtmd_cpp


class NoTower:
    """Stands where a tower would be; see :class:`edge_mllm.tower.protocol.Tower`."""

    loaded = True
    tile_tokens = newline = None
    apart = False

    def __init__(self, row_width: int) -> None:
        self.row_width = row_width

    def load(self) -> None:
        """There is nothing to load."""

    def encode(
        self,
        pixels: npt.NDArray[np.float32],  # noqa: ARG002  (as every tower)
        progress: Progress | None = None,  # noqa: ARG002
        *,
        grids: Sequence[Grid] | None = None,  # noqa: ARG002
    ) -> Encoded:
        """Never called: pictures are refused when they are handed in."""
        raise PromptError("this model takes no pictures")

    def close(self) -> None:
        """There is nothing to free."""
