"""The pictures of a conversation with a bundle: decoded and tiled when they are handed in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edge_mllm.answer.budget import ImageBudget, Reduction, choose_within
from edge_mllm.answer.pictures.picture import ConversationPicture, PictureCheck
from edge_mllm.answer.timings import ImageUsage
from edge_mllm.arrays import FloatArray
from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.bundle.tilers import Tiler
from edge_mllm.errors import PromptError
from edge_mllm.picture.header import PictureHeader
from edge_mllm.picture.image import Picture, load_image, read_header, read_once
from edge_mllm.picture.reduction.areas import TokenArea, token_areas
from edge_mllm.picture.reduction.spec import TokenReduction
from edge_mllm.picture.reduction.tiles import skipped_tiles
from edge_mllm.picture.tile_plan import Grid, TilePlan, plan_tiles
from edge_mllm.picture.tiling import Pixels, cut_tiles, cutting_bytes, size_of
from edge_mllm.tower.cache import picture_digest
from edge_mllm.tower.protocol import Encoded
from edge_mllm.tower.stitching import join_tiles


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
    """Tiles that were left out, see :mod:`edge_mllm.picture.reduction.tiles`."""


class PicturePart(ConversationPicture):
    """One picture with the tiling chosen for it."""

    def __init__(self, origin: PictureOrigin, spec: BundleSpec, *, rgb: Pixels | None, rows: FloatArray | None) -> None:
        """Keep one picture; either its pixels or its embeddings are there.

        Args:
            origin: Size, digest and tiling.
            spec: Of the bundle.
            rgb: uint8 [height, width, 3] or an RGB image.
            rows: Embeddings float32 [tokens, row_width].
        """
        super().__init__(origin.digest, rgb=rgb, rows=rows)
        tiler, width, height = origin.tiler, origin.width, origin.height
        self.origin = origin
        whole = plan_tiles(width, height, tiler)
        self.plan: TilePlan = replace(whole, skipped=origin.skipped)
        own = [spec.image.tiler_for(pictures) for pictures in (1, 2)]
        self.reduced = tiler not in own and all(whole != plan_tiles(width, height, each) for each in own)
        """Whether it is tiled more coarsely than the model does by itself."""
        self._spec = spec

    @property
    def keeps_pixels(self) -> bool:
        """While it is tiled as a picture alone, in a model that tiles pictures in company otherwise."""
        return self._spec.image.several not in (None, self.origin.tiler)

    @property
    def tiles_in_order(self) -> bool:
        """Not where tiles are stitched."""
        return self.plan.stitch is None

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
        header = self.header or PictureHeader.plain(self.origin.width, self.origin.height)
        return PicturePart.planned(header, several, self._spec, reduction=self.reduction)

    @staticmethod
    def decoded(
        rgb: Pixels,
        tiler: Tiler,
        spec: BundleSpec,
        reduced_by: Reduction | None = None,
        reduction: TokenReduction | None = None,
    ) -> PicturePart:
        """A picture that is new, uint8 [height, width, 3] or an RGB image.

        Raises:
            SettingError: The reduction cannot be done with this model.
        """
        width, height = size_of(rgb)
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
        header: PictureHeader,
        tiler: Tiler,
        spec: BundleSpec,
        reduced_by: Reduction | None = None,
        reduction: TokenReduction | None = None,
    ) -> PicturePart:
        """A picture that is not decoded, to count with; all of its tiles are counted."""
        origin = PictureOrigin(header.width, header.height, b"", tiler, reduced_by)
        part = PicturePart(origin, spec, rgb=None, rows=None)
        part.reduce(reduction)
        part.header = header
        return part

    def with_rows(self, rows: FloatArray) -> PicturePart:
        """The picture with embeddings that were made elsewhere: float32 [tokens, row_width]."""
        digest = hashlib.sha256(self.digest + np.ascontiguousarray(rows).tobytes()).digest()
        return PicturePart(replace(self.origin, digest=digest), self._spec, rgb=None, rows=rows)

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
            tiles_reused=self.tiles_reused if self.source == "tower" else 0,
        )

    @property
    def token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of visual tokens, where the picture is not tiled."""
        return self.plan.token_grid

    @property
    def grids(self) -> Sequence[Grid] | None:
        """Rows and columns of units of every tile, where the tower takes any size."""
        return self.plan.grids

    @property
    def cutting_bytes(self) -> int:
        """The most that cutting it takes beside its pixels."""
        return cutting_bytes(self.plan)

    def joined(self, encoded: Encoded) -> FloatArray:
        """The tiles' embeddings one after the other, or stitched."""
        return join_tiles(encoded.embeddings, self.plan, encoded.newline)

    def tower_input(self) -> FloatArray:
        """Tiles float32 [tiles, 3, tile height, tile width] or packed patches [patches, values of a patch]."""
        return cut_tiles(self.rgb, self._spec.image, self._spec.vision, self.plan).pixels


def plan_pictures(
    pictures: Sequence[Picture], spec: BundleSpec, budget: ImageBudget, broken: PictureCheck | None = None
) -> list[PicturePart]:
    """Pictures with their tiling, from their headers alone: without pixels, to count with.

    Arguments and errors as :func:`prepare_pictures`.
    """
    headers = [read_header(picture) for picture in pictures]
    check = None if broken is None else partial(_check, headers, spec, budget, broken)
    chosen = _chosen([(header.width, header.height) for header in headers], spec, budget, check)
    return [
        PicturePart.planned(header, tiler, spec, why, budget.reduction)
        for header, (tiler, why) in zip(headers, chosen, strict=True)
    ]


def _check(
    headers: Sequence[PictureHeader],
    spec: BundleSpec,
    budget: ImageBudget,
    broken: PictureCheck,
    tilers: Sequence[Tiler],
) -> Reduction | None:
    """The limit that pictures of these headers break with these tilers."""
    pairs = zip(headers, tilers, strict=True)
    return broken([PicturePart.planned(header, tiler, spec, None, budget.reduction) for header, tiler in pairs])


def _chosen(
    sizes: Sequence[tuple[int, int]],
    spec: BundleSpec,
    budget: ImageBudget,
    check: Callable[[Sequence[Tiler]], Reduction | None] | None,
) -> list[tuple[Tiler, Reduction | None]]:
    """A tiler for each picture and what made it coarser, see :func:`edge_mllm.answer.budget.choose_within`."""
    own = spec.image.tiler_for(len(sizes))
    return choose_within(sizes, own, spec.vision.tokens_per_tile, budget, check)


def prepare_pictures(
    pictures: Sequence[Picture], spec: BundleSpec, budget: ImageBudget, broken: PictureCheck | None = None
) -> list[PicturePart]:
    """Decode pictures and choose their tiling; nothing is resized or encoded yet.

    Args:
        pictures: In any form.
        spec: Of the bundle.
        budget: Limits on visual tokens.
        broken: Further limits, see :func:`edge_mllm.answer.budget.choose_within`. Pictures that break one with any
            tiling are refused before they are decoded.

    Raises:
        ImageError: A picture cannot be read.
        PromptError: The budget cannot be kept.
        SettingError: Its reduction cannot be done with this model.
    """
    pictures = [read_once(picture) for picture in pictures]
    planned = plan_pictures(pictures, spec, budget, broken)
    if broken is not None:
        broken.refuse(planned)
    decoded = [load_image(picture) for picture in pictures]
    sizes = [(each.origin.width, each.origin.height) for each in planned]
    chosen = [(each.origin.tiler, each.origin.reduced_by) for each in planned]
    if sizes != [rgb.size for rgb in decoded]:  # turned by what stands behind the pixels
        chosen = _chosen([rgb.size for rgb in decoded], spec, budget, None)
    return [
        PicturePart.decoded(rgb, tiler, spec, why, budget.reduction)
        for rgb, (tiler, why) in zip(decoded, chosen, strict=True)
    ]
