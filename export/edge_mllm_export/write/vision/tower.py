"""Vision tower with projector to ONNX, with a free tile axis."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_mllm.picture.patches import patch_positions, patch_windows
from edge_mllm.tower.feeds import INPUT, OUTPUT, PLACES, POSITIONS, WINDOWS, tile_feeds
from edge_mllm_export.write.vision.attention import use_attention
from edge_mllm_quant.graph.files import save_graph
from edge_mllm_quant.tower.tower import quantise_tower

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import torch

    from edge_mllm.arrays import RgbArray
    from edge_mllm.bundle.spec import PatchInput
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family
    from edge_mllm_export.write.vision.attention import Attention
    from edge_mllm_quant.recipes.recipe import Recipe
    from edge_mllm_quant.tower.watching import Feeds

OPSET = 23
_TILES, _PICTURES = 24, 8
"""Most samples to quantise a tower with."""
NPU_TILES = 96
"""Most tiles that fix the scales of a tower for an NPU."""
_SAMPLE_BYTES = 256 << 20
"""Most bytes of the tiles chosen; large ones are fewer."""


@dataclass(frozen=True)
class TowerFiles:
    """A written tower."""

    files: tuple[Path, ...]
    report: dict[str, Any]
    """What was decided about it."""


def write_vision_onnx(
    checkpoint: Checkpoint,
    family: Family,
    out: Path,
    recipe: Recipe,
    *,
    attention: Attention = "mha",
    samples: Sequence[Feeds] = (),
) -> TowerFiles:
    """Write the tower as one ONNX file; beyond 2 GB with a ``.data`` file beside it.

    Input ``pixels`` float32 [tiles, 3, height, width], output ``embeddings`` float32 [tiles, tokens, n_embd], whatever
    the precision inside; for a tower that takes any size see :class:`edge_mllm.bundle.spec.VisionSpec`. With fp16 the
    weights are stored in half precision and cast when the file is loaded: half the size, full speed on a CPU. With
    int8 the matrix products run in integers, weights per output channel and activations per call; with int8_static the
    scales of activations are fixed. With int4 the weights are in blocks of 4 bits. See :mod:`edge_mllm_quant.tower`.

    Args:
        checkpoint: Where the weights are.
        family: Builds the tower.
        out: File to write.
        recipe: One of the vision recipes.
        attention: Operator for the attention, see :mod:`edge_mllm_export.write.vision.attention`.
        samples: Inputs of the tower to quantise with, see :func:`tower_samples`.
    """
    tower = family.build_tower(checkpoint)
    spec = family.vision(checkpoint)
    model = trace_tower(tower, spec.patches or (spec.tile_height, spec.tile_width), attention)
    del tower
    quantised = quantise_tower(model, recipe, samples)
    forget_tracing(quantised.model)
    return TowerFiles(save_graph(quantised.model, out), quantised.report)


def forget_tracing(model: onnx.ModelProto) -> None:
    """Remove what torch's exporter notes of its own run, in place: stack traces with paths of this machine."""
    for noted in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del noted.metadata_props[:]


def tower_samples(
    checkpoint: Checkpoint, family: Family, pictures: Sequence[RgbArray], *, most: int = _TILES
) -> tuple[Feeds, ...]:
    """Inputs of the tower: tiles spread over the pictures, or whole pictures for a tower that takes any size.

    Args:
        checkpoint: Where the settings are.
        family: Reads them.
        pictures: To cut.
        most: Tiles.
    """
    from edge_mllm.picture.tiling import cut_tiles

    image, vision = family.image(checkpoint), family.vision(checkpoint)
    if vision.patches is not None:
        cut = [cut_tiles(picture, image, vision) for picture in pictures[:_PICTURES]]
        runs = [feeds for item in cut for feeds in tile_feeds(item.pixels, item.plan.grids, vision.patches)]
        return tuple(runs[:: max(1, len(runs) // most)][:most])
    most = max(1, min(most, _SAMPLE_BYTES // (12 * vision.tile_height * vision.tile_width)))
    tiles = [tile for picture in pictures[:most] for tile in cut_tiles(picture, image, vision).pixels]
    chosen = range(0, len(tiles), max(1, len(tiles) // most))
    return tuple({INPUT: tiles[place][None]} for place in chosen)[:most]


def trace_tower(tower: torch.nn.Module, picture: tuple[int, int] | PatchInput, attention: Attention) -> Any:
    """Trace the tower with torch's exporter and return an onnx.ModelProto (float32).

    Args:
        tower: The module.
        picture: Height and width of its tiles, or the patches that it takes a picture of any size as.
        attention: Operator for the attention.
    """
    import torch

    use_attention(tower, attention)
    inputs, free_axes = _tile_example(picture) if isinstance(picture, tuple) else _patch_example(picture)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        _quiet_exporter()
        program = torch.onnx.export(
            tower,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[OUTPUT],
            dynamic_shapes=free_axes,
            verbose=False,
        )
    return program.model_proto


_Example = tuple[dict[str, "torch.Tensor"], tuple[dict[int, Any], ...]]
"""Inputs by name, and the free axes of each."""


def _tile_example(tile: tuple[int, int]) -> _Example:
    """Two tiles."""
    import torch

    return {INPUT: torch.zeros(2, 3, *tile)}, ({0: torch.export.Dim("tiles", min=1)},)


def _patch_example(spec: PatchInput) -> _Example:
    """A picture of two rows of visual tokens, as wide as makes two windows where there are any."""
    import torch

    grid = (2, max(3, (spec.window or 0) // spec.merge + 1))
    positions = torch.from_numpy(patch_positions(grid, spec))
    patches = {0: spec.merge**2 * torch.export.Dim("tokens", min=1)}
    inputs = {INPUT: torch.zeros(len(positions), spec.values), POSITIONS: positions}
    if spec.window is None:
        return inputs, (patches, patches)
    windows, places = map(torch.from_numpy, patch_windows(grid, spec))
    return inputs | {WINDOWS: windows, PLACES: places}, (
        patches,
        patches,
        {0: torch.export.Dim("windows", min=1)},
        patches,
    )


def _quiet_exporter() -> None:
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
