"""What LLaVA-NeXT and LLaVA-OneVision have in common: the best-fitting grid of tiles, stitched, rows with newlines."""

from __future__ import annotations

from typing import Any, Literal

from edge_mllm.bundle.spec import VisionSpec
from edge_mllm.bundle.tilers import BestFitGrid, Stitch
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.image_settings import ImageSettings
from edge_mllm_export.families.llava.llava import TOWERS

NEWLINE = "model.image_newline"
_MOST = 1024


def tile_side(settings: ImageSettings) -> int:
    """The side of tiles: ``size``, to which ``crop_size`` must be equal where there is one.

    Pictures are resized to the grid and to one tile whatever ``do_resize`` says, and what is left to resize and to crop
    has its size already.

    Raises:
        CheckpointError: A size is no square, or they differ.
    """
    tile = settings.square("size", shortest=True)
    settings.step("do_resize")
    if settings.values["crop_size"] is not None and settings.square("crop_size", square=True) != tile:
        raise settings.fault("crop_size", f"is {settings.values['crop_size']!r}, but size is {tile} px")
    return tile


def best_fit_grid(
    config: Any, settings: ImageSettings, tile: int, stitch: Stitch, fit: Literal["pad", "stretch"] = "pad"
) -> BestFitGrid:
    """The tiler; processor and model must name the same resolutions.

    Raises:
        CheckpointError: A resolution is not made of whole tiles, or the two files disagree.
    """
    found = grids(settings, tile)
    points = getattr(config, "image_grid_pinpoints", None)
    if [list(point) for point in points or ()] != [[rows * tile, cols * tile] for rows, cols in found]:
        raise CheckpointError("config.json", "image_grid_pinpoints", f"names other resolutions than {settings.file}")
    return BestFitGrid(tile=tile, grids=found, stitch=stitch, fit=fit)


def grids(settings: ImageSettings, tile: int) -> tuple[tuple[int, int], ...]:
    """Rows and columns of every resolution in ``image_grid_pinpoints``.

    Raises:
        CheckpointError: One is not made of whole tiles.
    """
    points = settings.values["image_grid_pinpoints"]
    if not isinstance(points, list) or not 0 < len(points) <= _MOST or any(_odd(point, tile) for point in points):
        reason = f"is {str(points)[:80]}, expected [height, width] pairs in whole tiles of {tile} px"
        raise settings.fault("image_grid_pinpoints", reason)
    return tuple((height // tile, width // tile) for height, width in points)


def _odd(point: Any, tile: int) -> bool:
    sides = point if isinstance(point, list) and len(point) == 2 else [0]
    return any(not isinstance(side, int) or side < tile or side % tile or side > _MOST * tile for side in sides)


def vision_spec(config: Any, settings: ImageSettings) -> VisionSpec:
    """Tile side and visual tokens per tile."""
    tile = check_tower(config, settings)
    return VisionSpec(tokens_per_tile=(tile // config.vision_config.patch_size) ** 2, tile_height=tile, tile_width=tile)


def check_tower(config: Any, settings: ImageSettings) -> int:
    """The side of tiles; the tower's tokens must be the patches of one alone.

    Raises:
        CheckpointError: Tower and processor do not fit each other, or the first token is not dropped as it must be.
    """
    vision, tile = config.vision_config, tile_side(settings)
    if vision.model_type not in TOWERS:
        reason = f"is '{vision.model_type}', known: {', '.join(TOWERS)}"
        raise CheckpointError("config.json", "vision_config.model_type", reason)
    if tile != vision.image_size:
        reason = f"makes tiles of {tile} px, but vision_config.image_size is {vision.image_size}"
        raise settings.fault("size", reason)
    fits = "default" if TOWERS[vision.model_type] else "full"
    if config.vision_feature_select_strategy != fits:
        reason = f"is '{config.vision_feature_select_strategy}', which leaves no square of patches of this tower"
        raise CheckpointError("config.json", "vision_feature_select_strategy", reason)
    return tile
