"""A picture that libmtmd cuts."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.answer.timings import ImageUsage
from edge_mllm.arrays import IntArray, RgbArray
from edge_mllm.picture.header import PictureHeader
from edge_mllm.picture.reduction.areas import TokenArea
from edge_mllm.tower.mtmd import PictureLayout, VisualRun

_COPIES = 3
"""The bitmap, libmtmd's own, and the one that it cuts."""
VISUAL = -1
"""A visual token in a prompt's ids: a GGUF file does not say which token its template repeats."""


class PairPicture(ConversationPicture):
    """One picture as libmtmd cuts it."""

    def __init__(self, rgb: RgbArray | None, layout: PictureLayout, size: tuple[int, int]) -> None:
        super().__init__(b"" if rgb is None else _digest(rgb, layout), rgb=rgb, rows=None)
        self.layout = layout
        self._width, self._height = size

    @staticmethod
    def decoded(rgb: RgbArray, layout: PictureLayout) -> PairPicture:
        """A picture uint8 [height, width, 3]."""
        return PairPicture(rgb, layout, (rgb.shape[1], rgb.shape[0]))

    @staticmethod
    def planned(header: PictureHeader) -> PairPicture:
        """A picture that is not decoded, whose visual tokens are not known: it counts as one."""
        part = PairPicture(None, PictureLayout((VisualRun(1, None),)), (header.width, header.height))
        part.header = header
        return part

    @property
    def cutting_bytes(self) -> int:
        """What libmtmd and its caller take for copies of the pixels."""
        return _COPIES * 3 * self._width * self._height

    @property
    def tokens(self) -> int:
        """Visual tokens that the tower gives."""
        return self.layout.tokens

    @property
    def areas(self) -> list[TokenArea]:
        """Each run of visual tokens; libmtmd tells their rows and columns only where positions have two axes."""
        grids = [(run.grid or (1, run.count), run.grid is not None) for run in self.layout.runs]
        return [TokenArea(rows=rows, cols=cols, gridded=known) for (rows, cols), known in grids]

    @property
    def usage(self) -> ImageUsage:
        """Size, tiles and tokens that the decoder gets; what libmtmd encodes in one piece counts as a tile."""
        tiles = len(self.layout.runs)
        tokens, source = self.prompt_tokens, self.source
        return ImageUsage(width=self._width, height=self._height, tiles=tiles, tokens=tokens, source=source)

    @property
    def token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of visual tokens, where positions have two axes."""
        return self.layout.runs[0].grid

    def tower_input(self) -> npt.NDArray[np.uint8]:
        """The picture itself, uint8 [height, width, 3]: libmtmd cuts it."""
        return np.asarray(self.rgb)

    @property
    def ids(self) -> IntArray:
        """int64 [n]: the marks around the picture, with :data:`VISUAL` once for each visual token."""
        parts = [np.full(part.count, VISUAL) if isinstance(part, VisualRun) else part for part in self.layout.parts]
        return np.concatenate(parts).astype(np.int64)


def _digest(rgb: RgbArray, layout: PictureLayout) -> bytes:
    digest = hashlib.sha256(f"libmtmd {rgb.shape} {layout.tokens}".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.digest()
