"""The vision tower with its projector: pixels in, visual embeddings out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm.bundle.npy import read_array
from edge_mllm.bundle.spec import PatchInput, VisionSpec
from edge_mllm.errors import EngineError, PartMismatchError, SettingError
from edge_mllm.machine.memory import trim_heap
from edge_mllm.machine.npu import NpuError
from edge_mllm.picture.tile_plan import Grid
from edge_mllm.tower.engines import TowerSession, line, open_tower
from edge_mllm.tower.feeds import INPUT, OUTPUT, PLACES, POSITIONS, WINDOWS, tile_feeds
from edge_mllm.tower.npu.process import NpuSession
from edge_mllm.tower.placement import Placement
from edge_mllm.tower.protocol import Encoded, Progress

if TYPE_CHECKING:
    from edge_mllm.bundle.files import OpenBundle


_FLOAT, _INT = "tensor(float)", "tensor(int64)"


class VisionTower:
    """A tower that is loaded on first use.

    Args:
        path: The ONNX file.
        spec: The tower's contract.
        row_width: Width of the decoder's rows, which the tower's output must have.
        threads: Threads of one run; None lets the library choose.
        tile_batch: Tiles per run. One is the default: it needs the least memory, more were not faster on a CPU, and
            an int8 tower that scales activations per run then gives a tile the same embeddings whatever its
            neighbours are.
        newline: The file of the newline embedding, for tilers that stitch.
        place: Where it runs, see :mod:`edge_mllm.tower.placement`; an NPU's files take the place of ``path``.

    Raises:
        SettingError: ``threads`` or ``tile_batch`` is below one.
    """

    def __init__(
        self,
        path: Path,
        spec: VisionSpec,
        row_width: int,
        *,
        threads: int | None = None,
        tile_batch: int = 1,
        newline: Path | None = None,
        place: Placement | None = None,
    ) -> None:
        if tile_batch < 1 or (threads is not None and threads < 1):
            raise SettingError("threads and tiles per run must be at least 1")
        self.path, self.spec, self.row_width = path, spec, row_width
        self.threads, self.tile_batch = threads, tile_batch
        self.place = place or Placement()
        self.load_seconds = 0.0
        self._session: TowerSession | None = None
        self._newline_path = newline
        self._newline: FloatArray | None = None

    @staticmethod
    def of(
        bundle: OpenBundle,
        *,
        threads: int | None,
        file: Path | None = None,
        place: Placement | None = None,
        tile_batch: int = 1,
    ) -> VisionTower:
        """The tower of a bundle, or of another ``file`` that takes its place."""
        spec, newline = bundle.spec, "newline" in bundle.spec.parts
        return VisionTower(
            file or bundle.file("vision"),
            spec.vision,
            spec.decoder.row_width,
            threads=threads,
            tile_batch=tile_batch,
            newline=bundle.file("newline") if newline else None,
            place=place,
        )

    @property
    def loaded(self) -> bool:
        """Whether the session is in memory."""
        return self._session is not None

    @property
    def tile_tokens(self) -> int | None:
        """As :class:`edge_mllm.tower.protocol.Tower` says: tiles that share a run may share scales of activations."""
        return self.spec.tokens_per_tile if self.spec.patches is None and self.tile_batch == 1 else None

    @property
    def apart(self) -> bool:
        """As :class:`edge_mllm.tower.protocol.Tower` says: on an NPU it has a process of its own."""
        return self.place.npu is not None

    @property
    def newline(self) -> FloatArray | None:
        """As :class:`edge_mllm.tower.protocol.Tower` says."""
        return self._newline

    def load(self) -> None:
        """Create the session now; does nothing when it is there.

        Raises:
            BundleError: The file or the newline embedding cannot be read.
            ExtraMissingError: The library is not installed.
            NpuError: The tower was placed on an NPU, and its library refuses it.
            PartMismatchError: Its inputs or outputs are not what the specification says.
        """
        if self._session is not None:
            return
        start = time.perf_counter()
        session = self._open()
        inputs, outputs = _ports(self.spec, self.row_width)
        _check_ports(self.path, session.get_inputs(), inputs)
        _check_ports(self.path, session.get_outputs(), outputs)
        if self._newline_path is not None:
            self._newline = read_newline(self._newline_path, self.row_width)
        self._session = session
        self.load_seconds = time.perf_counter() - start

    def _open(self) -> TowerSession:
        if self.place.npu is not None:
            return self.place.npu.open()
        return open_tower(self.path, self.place.engine, self.threads)

    def encode(
        self, pixels: FloatArray, progress: Progress | None = None, *, grids: Sequence[Grid] | None = None
    ) -> Encoded:
        """Run the tower over one picture.

        Args:
            pixels: float32 [tiles, 3, tile height, tile width], or packed patches [patches, values of a patch].
            progress: Called after every batch of tiles.
            grids: Rows and columns of units (``merge`` x ``merge`` patches) of every tile; only for a tower that takes
                any size.

        Raises:
            EngineError: The pixels have another shape, or the run failed.
        """
        patches = self.spec.patches
        if patches is None:
            self._check_tiles(pixels)
            feeds = []
        else:
            feeds = tile_feeds(pixels, grids, patches)
        self.load()
        start = time.perf_counter()
        if patches is None:
            embeddings = self._encode_tiles(pixels, progress)
        else:
            embeddings = self._encode_patches(feeds, patches, progress)
        seconds = time.perf_counter() - start
        trim_heap()
        if not np.isfinite(embeddings).all():
            raise EngineError(f"the tower '{self.path}' gave values that are not numbers; export it at fp32 or int8")
        return Encoded(embeddings, seconds, self._newline)

    def _check_tiles(self, pixels: FloatArray) -> None:
        expected = (3, self.spec.tile_height, self.spec.tile_width)
        if pixels.dtype != np.float32 or pixels.ndim != 4 or pixels.shape[1:] != expected or not len(pixels):
            raise EngineError(
                f"the tower takes float32 [tiles, {', '.join(map(str, expected))}], "
                f"got {pixels.dtype} {list(pixels.shape)}"
            )

    def _encode_tiles(self, pixels: FloatArray, progress: Progress | None) -> FloatArray:
        embeddings = np.empty((len(pixels), self.spec.tokens_per_tile, self.row_width), np.float32)
        for first in range(0, len(pixels), self.tile_batch):
            batch = slice(first, min(first + self.tile_batch, len(pixels)))
            embeddings[batch] = self._run({INPUT: np.ascontiguousarray(pixels[batch])}, embeddings[batch].shape)
            if progress is not None:
                progress(batch.stop, len(pixels))
        return embeddings

    def _encode_patches(
        self, feeds: list[dict[str, npt.NDArray[Any]]], patches: PatchInput, progress: Progress | None
    ) -> FloatArray:
        """Tiles of any size one by one: float32 [tiles, rows, row_width] if pooled, else [1, all rows, row_width]."""
        made = []
        for number, feed in enumerate(feeds, 1):
            rows = self.spec.tokens_per_tile if patches.pooled else len(feed[INPUT]) // patches.merge**2
            made.append(self._run(feed, (rows, self.row_width)))
            if progress is not None and (patches.pooled or len(feeds) > 1):
                progress(number, len(feeds))
        return np.stack(made) if patches.pooled else np.concatenate(made)[None]

    def close(self) -> None:
        """Free the session; the next :meth:`encode` loads it again."""
        if self._session is not None:
            if isinstance(self._session, NpuSession):
                self._session.close()
            self._session = None
            trim_heap()

    def _run(self, feeds: dict[str, npt.NDArray[Any]], expected: tuple[int, ...]) -> FloatArray:
        assert self._session is not None  # noqa: S101  (loaded by encode)
        try:
            (result,) = self._session.run([OUTPUT], feeds)
        except NpuError:
            self.close()  # the next picture starts another process
            raise
        except Exception as error:  # the libraries' classes share no base but this
            raise EngineError(f"the vision tower failed ({line(error)})") from error
        if result.shape != expected or result.dtype != np.float32:
            reason = f"the tower gave {result.dtype} {list(result.shape)}, expected float32 {list(expected)}"
            raise PartMismatchError(self.path, reason)
        embeddings: FloatArray = result
        return embeddings


def read_newline(path: Path, n_embd: int) -> FloatArray:
    """The newline embedding, float32 [n_embd].

    Raises:
        BundleError: The file cannot be read.
        PartMismatchError: It has another type or shape.
    """
    found = read_array(path, "the newline embedding")
    if found.dtype != np.float32 or found.shape != (n_embd,):
        raise PartMismatchError(path, f"the newline embedding should be float32 [{n_embd}]")
    newline: FloatArray = found
    return newline


_Ports = dict[str, tuple[str, tuple[int | str, ...]]]
"""Name -> (type, shape with the name of the first axis where it is free)."""


def _ports(spec: VisionSpec, row_width: int) -> tuple[_Ports, _Ports]:
    """Inputs and outputs that a tower of this kind has."""
    if spec.patches is None:
        pixels = ("tiles", 3, spec.tile_height, spec.tile_width)
        return {INPUT: (_FLOAT, pixels)}, {OUTPUT: (_FLOAT, ("tiles", spec.tokens_per_tile, row_width))}
    inputs: _Ports = {INPUT: (_FLOAT, ("patches", spec.patches.values)), POSITIONS: (_INT, ("patches", 2))}
    if spec.patches.window is not None:
        inputs |= {WINDOWS: (_INT, ("windows", spec.patches.window**2)), PLACES: (_INT, ("patches",))}
    rows = spec.tokens_per_tile if spec.patches.pooled else "tokens"
    return inputs, {OUTPUT: (_FLOAT, (rows, row_width))}


def _check_ports(path: Path, ports: Sequence[Any], expected: _Ports) -> None:
    """Exactly these ports, with these types and shapes; axes the file leaves open are checked when it runs."""
    if {port.name for port in ports} != set(expected):
        found = ", ".join(port.name for port in ports)
        names = " and ".join(f"'{name}'" for name in expected)
        raise PartMismatchError(path, f"the tower should have {names} alone, it has {found}")
    for port in ports:
        kind, wanted = expected[port.name]
        shape = list(port.shape)
        fits = len(shape) == len(wanted) and all(
            not isinstance(found, int) or found == side for found, side in zip(shape[1:], wanted[1:], strict=True)
        )
        if port.type != kind or not fits:
            reason = f"its '{port.name}' is {port.type} {shape}, expected {kind} [{', '.join(map(str, wanted))}]"
            raise PartMismatchError(path, f"tower and decoder do not belong together: {reason}")
        if isinstance(wanted[0], int):
            if isinstance(shape[0], int) and shape[0] != wanted[0]:
                raise PartMismatchError(path, f"its '{port.name}' has {shape[0]} rows, expected {wanted[0]}")
        elif isinstance(shape[0], int):
            raise PartMismatchError(path, f"its '{port.name}' has a fixed number of {wanted[0]} ({shape[0]})")
