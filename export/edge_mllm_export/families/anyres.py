"""What LLaVA-NeXT and LLaVA-OneVision have in common: the best-fitting grid of tiles, stitched, rows with newlines."""

from __future__ import annotations

from typing import Any, Literal

from edge_mllm.bundle import VisionSpec
from edge_mllm.tilers import BestFitGrid, Stitch
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.llava import TOWERS

FILE = "preprocessor_config.json"
NEWLINE = "model.image_newline"
_MOST = 1024


def square(size: Any, field: str) -> int:
    """The side of ``{"shortest_edge": n}`` or ``{"height": n, "width": n}``.

    Raises:
        CheckpointError: It is something else.
    """
    sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else [size]
    if isinstance(size, dict) and size.get("shortest_edge") is not None:
        sides = [size["shortest_edge"]]
    if not isinstance(sides[0], int) or sides[0] < 1 or sides[0] != sides[-1]:
        raise CheckpointError(FILE, field, f"is {size!r}, expected one square")
    return sides[0]


def best_fit_grid(
    config: Any, processor: dict[str, Any], tile: int, stitch: Stitch, fit: Literal["pad", "stretch"] = "pad"
) -> BestFitGrid:
    """The tiler; processor and model must name the same resolutions.

    Raises:
        CheckpointError: A resolution is not made of whole tiles, or the two files disagree.
    """
    found = grids(processor, tile)
    points = getattr(config, "image_grid_pinpoints", None)
    if [list(point) for point in points or ()] != [[rows * tile, cols * tile] for rows, cols in found]:
        raise CheckpointError("config.json", "image_grid_pinpoints", f"names other resolutions than {FILE}")
    return BestFitGrid(tile=tile, grids=found, stitch=stitch, fit=fit)


def grids(processor: dict[str, Any], tile: int) -> tuple[tuple[int, int], ...]:
    """Rows and columns of every resolution in ``image_grid_pinpoints``.

    Raises:
        CheckpointError: One is not made of whole tiles.
    """
    points = processor.get("image_grid_pinpoints")
    if not isinstance(points, list) or not 0 < len(points) <= _MOST or any(_odd(point, tile) for point in points):
        reason = f"is {str(points)[:80]}, expected [height, width] pairs in whole tiles of {tile} px"
        raise CheckpointError(FILE, "image_grid_pinpoints", reason)
    return tuple((height // tile, width // tile) for height, width in points)


def _odd(point: Any, tile: int) -> bool:
    sides = point if isinstance(point, list) and len(point) == 2 else [0]
    return any(not isinstance(side, int) or side < tile or side % tile or side > _MOST * tile for side in sides)


def vision_spec(config: Any, tile: int) -> VisionSpec:
    """Tile side and visual tokens per tile."""
    check_tower(config, tile)
    return VisionSpec(tokens_per_tile=(tile // config.vision_config.patch_size) ** 2, tile_height=tile, tile_width=tile)


def check_tower(config: Any, tile: int) -> None:
    """The tower's tokens must be its patches alone.

    Raises:
        CheckpointError: Tower and processor do not fit each other, or the first token is not dropped as it must be.
    """
    vision = config.vision_config
    if vision.model_type not in TOWERS:
        reason = f"is '{vision.model_type}', known: {', '.join(TOWERS)}"
        raise CheckpointError("config.json", "vision_config.model_type", reason)
    if tile != vision.image_size:
        reason = f"makes tiles of {tile} px, but vision_config.image_size is {vision.image_size}"
        raise CheckpointError(FILE, "size", reason)
    fits = "default" if TOWERS[vision.model_type] else "full"
    if config.vision_feature_select_strategy != fits:
        reason = f"is '{config.vision_feature_select_strategy}', which leaves no square of patches of this tower"
        raise CheckpointError("config.json", "vision_feature_select_strategy", reason)
