"""The pictures of a conversation with a bundle: decoded and tiled when they are handed in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_mllm.budget import ImageBudget, Reduction, choose_within
from edge_mllm.bundle import BundleSpec
from edge_mllm.conversation_picture import ConversationPicture, PictureCheck
from edge_mllm.decoders.protocol import FloatArray
from edge_mllm.errors import PromptError
from edge_mllm.image import Picture, RgbArray, load_rgb
from edge_mllm.reduction.areas import TokenArea, token_areas
from edge_mllm.reduction.spec import TokenReduction
from edge_mllm.reduction.tiles import skipped_tiles
from edge_mllm.stitching import join_tiles
from edge_mllm.tile_plan import TilePlan, plan_tiles
from edge_mllm.tilers import Tiler
from edge_mllm.tiling import cut_tiles
from edge_mllm.timings import ImageUsage
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
