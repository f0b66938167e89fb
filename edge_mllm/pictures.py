"""The pictures of a conversation: decoded when they are handed in, encoded when their embeddings are first needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.budget import ImageBudget, Reduction, choose_within
from edge_mllm.bundle import BundleSpec
from edge_mllm.decoders.protocol import FloatArray
from edge_mllm.encoder import PictureEncoder
from edge_mllm.image import Picture, RgbArray, load_rgb
from edge_mllm.stitching import join_tiles
from edge_mllm.tile_plan import TilePlan, plan_tiles
from edge_mllm.tilers import Tiler
from edge_mllm.tiling import cut_tiles
from edge_mllm.timings import EmbeddingSource, ImageUsage, Stopwatch
from edge_mllm.vision import Encoded
from edge_mllm.vision_cache import picture_digest


@dataclass(frozen=True)
class PictureOrigin:
    """What a picture was before it became embeddings."""

    width: int
    height: int
    digest: bytes
    tiler: Tiler
    """The one in force, which a budget may have made coarser than the model's own."""
    reduced_by: Reduction | None = None
    """What made it coarser."""


class ConversationPicture(ABC):
    """One picture of a conversation. After encoding, only its embeddings are kept."""

    def __init__(self, digest: bytes, *, rgb: RgbArray | None, rows: FloatArray | None) -> None:
        """Keep one picture; either its pixels or its embeddings are there.

        Args:
            digest: Equal for two pictures exactly when their pixels and what is done to them are.
            rgb: uint8 [height, width, 3].
            rows: Embeddings float32 [tokens, n_embd].
        """
        self.digest = digest
        self.source: EmbeddingSource = "tower"
        """Where the embeddings came from when they were last asked for."""
        self._rgb, self._embeddings = rgb, rows

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Visual tokens."""

    @property
    @abstractmethod
    def usage(self) -> ImageUsage:
        """Size, tiles and tokens."""

    @property
    @abstractmethod
    def token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of visual tokens, for 2-D position schemes."""

    @abstractmethod
    def tower_input(self) -> npt.NDArray[Any]:
        """What the tower gets. Not to be called once there are embeddings."""

    def joined(self, encoded: Encoded) -> FloatArray:
        """What the tower gave, as the decoder takes it: float32 [tokens, n_embd]."""
        return encoded.rows

    @property
    def content(self) -> npt.NDArray[Any]:
        """Its embeddings float32 [tokens, n_embd], or its pixels uint8 [height, width, 3] where there are none yet."""
        return self._rgb if self._embeddings is None and self._rgb is not None else np.asarray(self._embeddings)

    @property
    def encoded(self) -> bool:
        """Whether its embeddings are there."""
        return self._embeddings is not None

    @property
    def rgb(self) -> RgbArray:
        """Its pixels uint8 [height, width, 3]; there until it is encoded."""
        assert self._rgb is not None  # noqa: S101  (kept until there are embeddings)
        return self._rgb

    def embeddings(self, encoder: PictureEncoder, watch: Stopwatch) -> FloatArray:
        """Visual embeddings float32 [tokens, n_embd], read-only; computed once."""
        if self._embeddings is None:
            embedded = encoder.embed(self, watch)
            self._embeddings, self.source = embedded.rows, embedded.source
            self._rgb = None
        else:
            self.source = "memory"
        return self._embeddings

    def no_embeddings(self, n_embd: int) -> FloatArray:
        """Zeros float32 [tokens, n_embd] without memory, for a picture whose keys and values the decoder has."""
        self.source = "kv"
        return np.broadcast_to(np.float32(0), (self.tokens, n_embd))


class PicturePart(ConversationPicture):
    """One picture with the tiling chosen for it."""

    def __init__(
        self, origin: PictureOrigin, spec: BundleSpec, *, rgb: RgbArray | None, rows: FloatArray | None
    ) -> None:
        """Keep one picture; either its pixels or its embeddings are there.

        Args:
            origin: Size, digest and tiling.
            spec: Of the bundle.
            rgb: uint8 [height, width, 3].
            rows: Embeddings float32 [tokens, n_embd].
        """
        super().__init__(origin.digest, rgb=rgb, rows=rows)
        tiler, width, height = origin.tiler, origin.width, origin.height
        self.origin = origin
        self.plan: TilePlan = plan_tiles(width, height, tiler)
        own = (spec.image.tiler_for(pictures) for pictures in (1, 2))
        self.reduced = all(self.plan != plan_tiles(width, height, each) for each in own)
        """Whether it is tiled more coarsely than the model does by itself."""
        self._spec = spec

    @staticmethod
    def decoded(rgb: RgbArray, tiler: Tiler, spec: BundleSpec, reduced_by: Reduction | None = None) -> PicturePart:
        """A picture uint8 [height, width, 3] that is new."""
        height, width = rgb.shape[:2]
        digest = picture_digest(rgb, spec.image, spec.vision, tiler)
        return PicturePart(PictureOrigin(width, height, digest, tiler, reduced_by), spec, rgb=rgb, rows=None)

    @staticmethod
    def planned(size: tuple[int, int], tiler: Tiler, spec: BundleSpec) -> PicturePart:
        """A picture of this width and height without pixels, to count with."""
        return PicturePart(PictureOrigin(*size, b"", tiler), spec, rgb=None, rows=None)

    @property
    def tokens(self) -> int:
        """Visual tokens."""
        return self.plan.tokens(self._spec.vision.tokens_per_tile)

    @property
    def usage(self) -> ImageUsage:
        """Size, tiles and tokens."""
        return ImageUsage(
            width=self.plan.width,
            height=self.plan.height,
            tiles=self.plan.count,
            tokens=self.tokens,
            reduced=self.reduced,
            source=self.source,
            reduced_by=self.origin.reduced_by if self.reduced else None,
        )

    @property
    def token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of visual tokens, where the picture is not tiled."""
        return self.plan.token_grid

    def joined(self, encoded: Encoded) -> FloatArray:
        """The tiles' embeddings one after the other, or stitched."""
        return join_tiles(encoded.embeddings, self.plan, encoded.newline)

    def tower_input(self) -> FloatArray:
        """Tiles float32 [tiles, 3, tile height, tile width] or packed patches [patches, values of a patch]."""
        return cut_tiles(self.rgb, self._spec.image, self._spec.vision, tiler=self.origin.tiler).pixels


PictureCheck = Callable[[Sequence[ConversationPicture]], Reduction | None]
"""Names the limit that pictures break with the tiling they have."""


def prepare_pictures(
    pictures: Sequence[Picture], spec: BundleSpec, budget: ImageBudget, broken: PictureCheck | None = None
) -> list[PicturePart]:
    """Decode pictures and choose their tiling; nothing is resized or encoded yet.

    Args:
        pictures: In any form.
        spec: Of the bundle.
        budget: Limits on visual tokens.
        broken: Further limits, see :func:`edge_mllm.budget.choose_within`.

    Raises:
        ImageError: A picture cannot be read.
        PromptError: The budget cannot be kept.
    """
    decoded = [load_rgb(picture) for picture in pictures]
    sizes = [(rgb.shape[1], rgb.shape[0]) for rgb in decoded]
    own = spec.image.tiler_for(len(sizes))

    def check(tilers: Sequence[Tiler]) -> Reduction | None:
        planned = [PicturePart.planned(size, tiler, spec) for size, tiler in zip(sizes, tilers, strict=True)]
        return None if broken is None else broken(planned)

    chosen = choose_within(sizes, own, spec.vision.tokens_per_tile, budget, check)
    return [PicturePart.decoded(rgb, tiler, spec, why) for rgb, (tiler, why) in zip(decoded, chosen, strict=True)]
