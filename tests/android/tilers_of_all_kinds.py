"""Image settings of every tiler, with the numbers of published models and with unusual ones."""

from __future__ import annotations

from edge_mllm.bundle.spec import ImageSpec, PatchInput, VisionSpec
from edge_mllm.bundle.tilers import (
    AspectGrid,
    BestFitGrid,
    LongestEdgeGrid,
    NativeResolution,
    PanAndScan,
    SingleTile,
    Stitch,
    Tiler,
)

_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_SQUARES = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1))
_WIDE = tuple((rows, cols) for rows in range(1, 7) for cols in range(1, 7))

TILERS: dict[str, tuple[Tiler, int]] = {
    "smolvlm": (LongestEdgeGrid(longest_edge=2048, tile=512), 64),
    "smolvlm-2.2b": (LongestEdgeGrid(longest_edge=1536, tile=384), 81),
    "starter": (LongestEdgeGrid(longest_edge=192, tile=96), 36),
    "no-split": (LongestEdgeGrid(longest_edge=192, tile=96, split=False), 36),
    "internvl": (AspectGrid(tile=448, max_tiles=12), 256),
    "internvl-small": (AspectGrid(tile=32, min_tiles=3, max_tiles=7, thumbnail=False), 4),
    "qwen2-vl": (NativeResolution(unit=28, min_pixels=3136, max_pixels=12_845_056), 1),
    "qwen-small": (NativeResolution(unit=28, min_pixels=56 * 56, max_pixels=28 * 28 * 40), 1),
    "llava-next": (BestFitGrid(tile=336, grids=_SQUARES, stitch=Stitch()), 576),
    "onevision": (BestFitGrid(tile=384, grids=_WIDE, stitch=Stitch(max_tiles=9)), 729),
    "bluelm-v": (BestFitGrid(tile=384, grids=_WIDE, slack=0.1, stitch=Stitch(plain=True)), 81),
    "ferret-ui": (BestFitGrid(tile=336, grids=((1, 2), (2, 1)), fit="stretch"), 576),
    "no-grids": (BestFitGrid(tile=32, grids=(), stitch=Stitch()), 4),
    "llava": (SingleTile(tile=336, fit="crop"), 576),
    "llava-pad": (SingleTile(tile=336, fit="pad", fill=(122, 116, 104)), 576),
    "stretch": (SingleTile(tile=384, stitch=Stitch()), 729),
    "gemma3": (PanAndScan(tile=896, min_crop=256, max_crops=4, min_ratio=1.2), 256),
    "gemma3-whole": (PanAndScan(tile=64, min_crop=16, max_crops=1, min_ratio=1.2), 4),
    "pieces": (PanAndScan(tile=48, min_crop=10, max_crops=9, min_ratio=1.05), 4),
}
"""Name -> tiler, visual tokens of a tile."""

RESAMPLES = ("lanczos", "bicubic", "bilinear", "box", "hamming", "nearest")


def settings(name: str, resample: str = "bicubic") -> tuple[ImageSpec, VisionSpec]:
    """Image and vision specification of one of :data:`TILERS`."""
    tiler, tokens = TILERS[name]
    mean, std = (_CLIP, _IMAGENET, _HALF)[len(name) % 3]
    image = ImageSpec(tiler=tiler, resample=resample, rescale=1 / 255, mean=mean, std=std)  # type: ignore[arg-type]
    if isinstance(tiler, NativeResolution):
        patches = PatchInput(patch=tiler.unit // 2, merge=2, frames=2)
        return image, VisionSpec(tokens_per_tile=1, tile_height=tiler.unit, tile_width=tiler.unit, patches=patches)
    return image, VisionSpec(tokens_per_tile=tokens, tile_height=tiler.tile, tile_width=tiler.tile)
