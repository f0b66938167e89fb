"""The pictures of a conversation: decoded when they are handed in, encoded when their embeddings are first needed."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.budget import ImageBudget, Reduction, choose_within
from edge_mllm.bundle import BundleSpec
from edge_mllm.decoders.protocol import FloatArray, IntArray
from edge_mllm.encoder import PictureEncoder
from edge_mllm.errors import PromptError, SettingError
from edge_mllm.image import Picture, RgbArray, load_rgb
from edge_mllm.reduction.areas import TokenArea, token_areas
from edge_mllm.reduction.spec import TokenReduction
from edge_mllm.reduction.thinning import thin_rows
from edge_mllm.reduction.tiles import skipped_tiles
from edge_mllm.stitching import join_tiles
from edge_mllm.tile_plan import TilePlan, plan_tiles
from edge_mllm.tilers import Tiler
from edge_mllm.tiling import cut_tiles
from edge_mllm.timings import EmbeddingSource, ImageUsage, ReductionUsage, Stopwatch
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
    skipped: tuple[int, ...] = ()
    """Tiles that were left out, see :mod:`edge_mllm.reduction.tiles`."""


class ConversationPicture(ABC):
    """One picture of a conversation. After encoding, its pixels are kept only where :attr:`keeps_pixels` says so."""

    def __init__(self, digest: bytes, *, rgb: RgbArray | None, rows: FloatArray | None) -> None:
        """Keep one picture; either its pixels or its embeddings are there.

        Args:
            digest: Equal for two pictures exactly when their pixels and what is done to them are.
            rgb: uint8 [height, width, 3].
            rows: Embeddings float32 [tokens, n_embd].
        """
        self.digest = digest
        self.source: EmbeddingSource = "tower"
        """Where the embeddings came from for the last answer that asked for them."""
        self._watch: Stopwatch | None = None
        """That answer's."""
        self._rgb, self._embeddings = rgb, rows
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

    @abstractmethod
    def tower_input(self) -> npt.NDArray[Any]:
        """What the tower gets. Not to be called once there are embeddings."""

    def joined(self, encoded: Encoded) -> FloatArray:
        """What the tower gave, as the decoder takes it: float32 [tokens, n_embd]."""
        return encoded.rows

    @property
    def content(self) -> npt.NDArray[Any]:
        """Its pixels uint8 [height, width, 3] while it has them, then its embeddings float32 [tokens, n_embd]."""
        return self._rgb if self._rgb is not None else np.asarray(self._embeddings)

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
            self._rgb = self._rgb if self.keeps_pixels else None
        elif watch is not self._watch:
            self.source = "memory"
        self._watch = watch
        return self._embeddings

    def decoder_rows(self, encoder: PictureEncoder, watch: Stopwatch) -> FloatArray:
        """What the decoder gets: float32 [prompt_tokens, n_embd]; ``kept`` must have been decided."""
        rows = self.embeddings(encoder, watch)
        if self.thinned is None:
            return rows
        assert self.kept is not None  # noqa: S101  (the pipeline decides first)
        with watch.stage("reduction"):
            return thin_rows(self.thinned, self.areas, rows, self.kept)

    def no_embeddings(self, n_embd: int) -> FloatArray:
        """Zeros float32 [prompt_tokens, n_embd], for a picture whose keys and values the decoder has; no memory."""
        self.source = "kv"
        return np.broadcast_to(np.float32(0), (self.prompt_tokens, n_embd))


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
        whole = plan_tiles(width, height, tiler)
        self.plan: TilePlan = replace(whole, skipped=origin.skipped)
        own = (spec.image.tiler_for(pictures) for pictures in (1, 2))
        self.reduced = all(whole != plan_tiles(width, height, each) for each in own)
        """Whether it is tiled more coarsely than the model does by itself."""
        self._spec = spec

    @property
    def keeps_pixels(self) -> bool:
        """While it is tiled as a picture alone, in a model that tiles pictures in company otherwise."""
        return self._spec.image.several not in (None, self.origin.tiler)

    def in_company(self) -> ConversationPicture:
        """Tiled as beside other pictures.

        Raises:
            PromptError: Its pixels are gone.
        """
        several = self._spec.image.several
        if several is None or not self.keeps_pixels:
            return self
        if self._rgb is not None:
            return PicturePart.decoded(self._rgb, several, self._spec, reduction=self.reduction)
        if self.encoded:
            raise PromptError("an earlier picture must be tiled anew beside others, but was saved without its pixels")
        return PicturePart.planned((self.origin.width, self.origin.height), several, self._spec, self.reduction)

    @staticmethod
    def decoded(
        rgb: RgbArray,
        tiler: Tiler,
        spec: BundleSpec,
        reduced_by: Reduction | None = None,
        reduction: TokenReduction | None = None,
    ) -> PicturePart:
        """A picture uint8 [height, width, 3] that is new.

        Raises:
            SettingError: The reduction cannot be done with this model.
        """
        height, width = rgb.shape[:2]
        digest = picture_digest(rgb, spec.image, spec.vision, tiler)
        skipped: tuple[int, ...] = ()
        if reduction is not None and reduction.on_pixels:
            skipped = skipped_tiles(rgb, plan_tiles(width, height, tiler), spec.image, reduction)
        if skipped:  # other tiles, so another picture for the tower and its cache
            digest = hashlib.sha256(digest + repr(skipped).encode()).digest()
        origin = PictureOrigin(width, height, digest, tiler, reduced_by, skipped)
        part = PicturePart(origin, spec, rgb=rgb, rows=None)
        part.reduce(reduction)
        return part

    @staticmethod
    def planned(
        size: tuple[int, int], tiler: Tiler, spec: BundleSpec, reduction: TokenReduction | None = None
    ) -> PicturePart:
        """A picture of this width and height without pixels, to count with; all of its tiles are."""
        part = PicturePart(PictureOrigin(*size, b"", tiler), spec, rgb=None, rows=None)
        part.reduce(reduction)
        return part

    @property
    def tokens(self) -> int:
        """Visual tokens."""
        return self.plan.tokens(self._spec.vision.tokens_per_tile)

    @property
    def whole_tokens(self) -> int:
        """Visual tokens without any reduction."""
        return replace(self.plan, skipped=()).tokens(self._spec.vision.tokens_per_tile)

    @property
    def areas(self) -> Sequence[TokenArea]:
        """How its visual tokens lie."""
        return token_areas(self.plan, self._spec.vision.tokens_per_tile)

    @property
    def usage(self) -> ImageUsage:
        """Size, tiles and tokens that the decoder gets."""
        return ImageUsage(
            width=self.plan.width,
            height=self.plan.height,
            tiles=self.plan.count,
            tokens=self.prompt_tokens,
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
        origin, spec = self.origin, self._spec
        return cut_tiles(self.rgb, spec.image, spec.vision, tiler=origin.tiler, skipped=origin.skipped).pixels


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
        SettingError: Its reduction cannot be done with this model.
    """
    decoded = [load_rgb(picture) for picture in pictures]
    sizes = [(rgb.shape[1], rgb.shape[0]) for rgb in decoded]
    own = spec.image.tiler_for(len(sizes))

    def check(tilers: Sequence[Tiler]) -> Reduction | None:
        pairs = zip(sizes, tilers, strict=True)
        planned = [PicturePart.planned(size, tiler, spec, budget.reduction) for size, tiler in pairs]
        return None if broken is None else broken(planned)

    chosen = choose_within(sizes, own, spec.vision.tokens_per_tile, budget, check)
    return [
        PicturePart.decoded(rgb, tiler, spec, why, budget.reduction)
        for rgb, (tiler, why) in zip(decoded, chosen, strict=True)
    ]


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
