"""A picture of a conversation: what every kind of reader hands on, encoded when its embeddings are first needed."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_mllm.answer.budget import Reduction
from edge_mllm.answer.timings import EmbeddingSource, ImageUsage, ReductionUsage, Stopwatch
from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.errors import SettingError
from edge_mllm.picture.header import PictureHeader
from edge_mllm.picture.reduction.areas import TokenArea
from edge_mllm.picture.reduction.spec import TokenReduction
from edge_mllm.picture.tile_plan import Grid
from edge_mllm.picture.tiling import Pixels
from edge_mllm.tower.protocol import Encoded


class ConversationPicture(ABC):
    """One picture of a conversation. After encoding, its pixels are kept only where :attr:`keeps_pixels` says so."""

    def __init__(self, digest: bytes, *, rgb: Pixels | None, rows: FloatArray | None) -> None:
        """Keep one picture; either its pixels or its embeddings are there.

        Args:
            digest: Equal for two pictures exactly when their pixels and what is done to them are.
            rgb: uint8 [height, width, 3] or an RGB image.
            rows: Embeddings float32 [tokens, row_width].
        """
        self.digest = digest
        self.source: EmbeddingSource = "tower"
        """Where the embeddings came from for the last answer that asked for them."""
        self.tiles_reused = 0
        """Tiles whose embeddings were there when it was encoded."""
        self.watch: Stopwatch | None = None
        """That answer's."""
        self._rgb, self._embeddings = rgb, rows
        self.header: PictureHeader | None = None
        """What decoding it will take, where that is still to come."""
        self.reduction: TokenReduction | None = None
        """What was asked for."""
        self.query: tuple[int, ...] | None = None
        """Token ids of the question that the tokens were chosen for, where that matters."""
        self.kept: IntArray | None = None
        """Places of the visual tokens that the decoder gets, ascending int64; None: not decided yet, or all."""

    @property
    def keeps_pixels(self) -> bool:
        """Whether its pixels are needed even after it is encoded."""
        return False

    @property
    def tiles_in_order(self) -> bool:
        """Whether its rows are those of its tiles one after the other, whatever the tiles show."""
        return False

    def in_company(self) -> ConversationPicture:
        """The picture as the model sees it beside other pictures."""
        return self

    @property
    def thinned(self) -> TokenReduction | None:
        """The reduction between tower and decoder, where there is one."""
        return self.reduction if self.reduction is not None and self.reduction.thins else None

    def reduce(self, reduction: TokenReduction | None) -> None:
        """Have fewer visual tokens go to the decoder.

        Raises:
            SettingError: This model's pictures do not allow it.
        """
        self.reduction = reduction
        if self.thinned is not None and self.thinned.method == "pool" and not all(each.gridded for each in self.areas):
            raise SettingError(
                "image reduction 'pool' needs to know how a picture's tokens lie, which this model does not tell; "
                "use uniform or diverse"
            )

    @property
    def key(self) -> bytes:
        """Equal for two pictures exactly when the decoder gets the same of them."""
        if self.thinned is None:
            return self.digest
        query = np.array(self.query or (), "<i8").tobytes() if self.thinned.needs_query else b""
        return hashlib.sha256(self.digest + self.thinned.text.encode() + b"\0" + query).digest()

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Visual tokens that the tower gives."""

    @property
    def prompt_tokens(self) -> int:
        """Visual tokens that the decoder gets."""
        return self.tokens if self.thinned is None else self.thinned.count(self.areas)

    @property
    def whole_tokens(self) -> int:
        """Visual tokens without any reduction."""
        return self.tokens

    @property
    @abstractmethod
    def areas(self) -> Sequence[TokenArea]:
        """How its visual tokens lie."""

    @property
    @abstractmethod
    def usage(self) -> ImageUsage:
        """Size, tiles and tokens that the decoder gets."""

    @property
    @abstractmethod
    def token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of visual tokens, for 2-D position schemes."""

    @property
    def grids(self) -> Sequence[Grid] | None:
        """Rows and columns of units of every tile, for towers that take any size."""
        return None

    @abstractmethod
    def tower_input(self) -> npt.NDArray[Any]:
        """What the tower gets. Not to be called once there are embeddings."""

    def joined(self, encoded: Encoded) -> FloatArray:
        """What the tower gave, as the decoder takes it: float32 [tokens, row_width]."""
        return encoded.rows

    @property
    def content(self) -> npt.NDArray[Any]:
        """Its pixels uint8 [height, width, 3] while it has them, then its embeddings float32 [tokens, row_width]."""
        return np.asarray(self._rgb if self._rgb is not None else self._embeddings)

    @property
    def encoded(self) -> bool:
        """Whether its embeddings are there."""
        return self._embeddings is not None

    @property
    def cutting_bytes(self) -> int:
        """The most that making the tower's input of its pixels takes beside them."""
        return 0

    @property
    def rgb(self) -> Pixels:
        """Its pixels, uint8 [height, width, 3] or an RGB image; there until it is encoded."""
        assert self._rgb is not None  # noqa: S101  (kept until there are embeddings)
        return self._rgb

    @property
    def rows(self) -> FloatArray:
        """Its embeddings float32 [tokens, row_width], read-only; there once it is encoded."""
        assert self._embeddings is not None  # noqa: S101  (the encoder keeps them here first)
        return self._embeddings

    def keep(self, rows: FloatArray, source: EmbeddingSource) -> None:
        """Have embeddings float32 [tokens, row_width], which came from ``source``."""
        self._embeddings, self.source = rows, source
        self._rgb = self._rgb if self.keeps_pixels else None

    def no_embeddings(self, row_width: int) -> FloatArray:
        """Zeros float32 [prompt_tokens, row_width], for a picture whose keys and values the decoder has; no memory."""
        self.source = "kv"
        return np.broadcast_to(np.float32(0), (self.prompt_tokens, row_width))


class PictureCheck(Protocol):
    """Limits on an answer, asked about its pictures before they are decoded."""

    def __call__(self, pictures: Sequence[ConversationPicture], /) -> Reduction | None:
        """Name the limit that pictures break with the tiling they have."""
        ...

    def refuse(self, pictures: Sequence[ConversationPicture]) -> None:
        """Refuse pictures that break one however coarsely they are tiled.

        Raises:
            LimitError: They do.
        """
        ...


def seen_together(pictures: Sequence[ConversationPicture]) -> list[ConversationPicture]:
    """All pictures of a conversation, tiled as the model tiles so many.

    Raises:
        PromptError: An earlier picture would have to be tiled anew and its pixels are gone.
    """
    return [picture.in_company() for picture in pictures] if len(pictures) > 1 else list(pictures)


def reduction_usage(pictures: Sequence[ConversationPicture], seconds: float | None = None) -> ReductionUsage | None:
    """What was asked of pictures and what it gives; None where nothing was.

    Args:
        pictures: Of a prompt.
        seconds: What it took.
    """
    asked = [picture for picture in pictures if picture.reduction is not None]
    if not asked:
        return None
    return ReductionUsage(
        asked=", ".join(dict.fromkeys(picture.reduction.text for picture in asked if picture.reduction)),
        tokens_before=sum(picture.whole_tokens for picture in asked),
        tokens_after=sum(picture.prompt_tokens for picture in asked),
        seconds=seconds,
    )
