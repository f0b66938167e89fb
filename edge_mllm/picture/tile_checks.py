"""Whether a model's tiling goes with its tower."""

from __future__ import annotations

import math
from pathlib import Path

from edge_mllm.bundle.spec import BundleSpec
from edge_mllm.bundle.tilers import AdaptiveSlices, Tiler
from edge_mllm.errors import BundleError, EdgeMLLMError
from edge_mllm.picture.tile_plan import MAX_TILES, TilePlan, plan_tiles

_MAX_WINDOW = 256


def check_tiles(root: Path, spec: BundleSpec, *, where: str = "bundle.json") -> None:
    """Refuse tiles that have not the tower's size, or thousands of them.

    Args:
        root: Of the model, for the message.
        spec: To check.
        where: What the numbers come from, for the message.

    Raises:
        BundleError: The tiling does not go with the tower.
    """
    for tiler in (spec.image.tiler, spec.image.several):
        if tiler is not None:
            _check_tiles(root, spec, tiler, where)
            _check_canvas(root, spec, tiler, where)


def _check_tiles(root: Path, spec: BundleSpec, tiler: Tiler, where: str) -> None:
    """Tiles must have the tower's size, and there must not be thousands of them."""
    grids = getattr(tiler, "grids", ())
    if any(not 0 < side <= MAX_TILES for grid in grids for side in grid):
        raise BundleError(root, f"{where}, image.tiler.grids: rows and columns must be from 1 to {MAX_TILES}")
    try:
        plan = plan_tiles(1024, 1024, tiler)
    except EdgeMLLMError as error:
        raise BundleError(root, f"{where}, image.tiler: {error}") from error
    _check_stitching(root, spec, plan, where)
    patches = spec.vision.patches
    pooled = plan.unit is not None and not plan.unit_tokens
    if (plan.grids is None) != (patches is None) or pooled != bool(patches and patches.pooled):
        raise BundleError(root, f"{where}, vision.patches does not go with the tiler '{tiler.kind}'")
    width, height = plan.tile_size
    if isinstance(tiler, AdaptiveSlices) and patches is not None:
        merge = tiler.merge or 1
        width, height = (tiler.tile, tiler.tile) if pooled else (tiler.unit, tiler.unit)
        if (patches.patch, patches.merge, patches.window) != (tiler.patch, merge, None) or tiler.tile < tiler.unit:
            each = "one patch" if merge == 1 else f"{merge}x{merge} patches"
            reason = f"image.tiler has units of {tiler.unit} pixels, {each} each, and no windows"
            raise BundleError(root, f"{where}, vision.patches: {reason}")
    elif plan.token_grid is not None and patches is not None:
        width, height = width // plan.token_grid[1], height // plan.token_grid[0]
        if patches.patch * patches.merge != width:
            reason = f"{patches.merge} patches of {patches.patch} pixels, image.tiler has units of {width}"
            raise BundleError(root, f"{where}, vision.patches makes a token of {reason}")
        if patches.window is not None and (patches.window % patches.merge or patches.window > _MAX_WINDOW):
            reason = f"a multiple of {patches.merge} up to {_MAX_WINDOW} is expected"
            raise BundleError(root, f"{where}, vision.patches.window: {patches.window}, {reason}")
    if (width, height) != (spec.vision.tile_width, spec.vision.tile_height):
        tower = f"{spec.vision.tile_width}x{spec.vision.tile_height}"
        raise BundleError(root, f"{where}, image.tiler cuts {width}x{height} tiles but vision takes {tower}")


def _check_canvas(root: Path, spec: BundleSpec, tiler: Tiler, where: str) -> None:
    """A canvas is laid out from slices of whole tokens with a mark before each, for decoders that keep states.

    Where all keys and values can be kept token by token, a mark before a picture would be taken for the same in a text.
    """
    if (spec.decoder.positions == "canvas") != bool(spec.prompt.canvas_marks):
        reason = f"{list(spec.prompt.canvas_marks)} does not go with decoder.positions '{spec.decoder.positions}'"
        raise BundleError(root, f"{where}, prompt.canvas_marks: {reason}")
    if spec.decoder.positions != "canvas":
        return
    if not isinstance(tiler, AdaptiveSlices) or tiler.merge is None:
        raise BundleError(root, f"{where}, image.tiler: canvas positions need adaptive slices of whole tokens")
    layout = spec.prompt.layout
    for name in ("before_tile", "after_tile", "before_global", "after_global", "before_single", "after_single"):
        if not getattr(layout, name):
            raise BundleError(root, f"{where}, prompt.layout.{name} is empty, and canvas positions need a mark there")
    if len(spec.decoder.mrope_sections) != 3:
        found = len(spec.decoder.mrope_sections)
        raise BundleError(root, f"{where}, decoder.mrope_sections: canvas positions have three, not {found}")
    if spec.decoder.state_layers is None:
        raise BundleError(
            root, f"{where}, decoder.state_layers is missing, but canvas positions are known with it only"
        )


def _check_stitching(root: Path, spec: BundleSpec, plan: TilePlan, where: str) -> None:
    """A map needs square tiles of tokens, and the newline embedding behind its rows unless it is plain."""
    if plan.stitch is None:
        return
    if math.isqrt(spec.vision.tokens_per_tile) ** 2 != spec.vision.tokens_per_tile:
        reason = f"{spec.vision.tokens_per_tile} is no square number, which image.tiler.stitch needs"
        raise BundleError(root, f"{where}, vision.tokens_per_tile: {reason}")
    if plan.stitch.max_tiles is not None and not 0 < plan.stitch.max_tiles <= MAX_TILES:
        reason = f"{plan.stitch.max_tiles} is not from 1 to {MAX_TILES}"
        raise BundleError(root, f"{where}, image.tiler.stitch.max_tiles: {reason}")
    if not plan.stitch.plain and "newline" not in spec.parts:
        raise BundleError(root, f"{where} names no newline, which image.tiler.stitch needs; export the model again")
