"""Sizes of a model's tower and decoder, read from the shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from edge_mllm.costs.facts import write_shape
from edge_mllm.costs.shapes import ModelShape, TowerShape, decoder_shape
from edge_mllm.errors import SettingError

if TYPE_CHECKING:
    from edge_mllm.bundle.spec import VisionSpec
    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family

_LAYER = re.compile(r"\.(?:layers|layer|blocks)\.(\d+)\.")
_MERGER = ".vit_merger."
"""In names of tensors between two layers of a tower, which make four patches one."""
_TABLES = ("position", "class_", "cls_")


def model_shape(checkpoint: Checkpoint, family: Family) -> ModelShape:
    """Shape of a checkpoint; its configuration is all that is read.

    Raises:
        SettingError: The tower is no vision transformer with layers over patches.
    """
    text, tower = family.text_config(checkpoint), family.config(checkpoint).vision_config
    return ModelShape(
        decoder=decoder_shape(text, tied=bool(text["tie_word_embeddings"])),
        tower=tower_shape_of(family.stored_tower_shapes(checkpoint), family.vision(checkpoint), tower),
    )


def shape_report(checkpoint: Checkpoint, family: Family) -> dict[str, Any]:
    """What bundle.json records of the shape, for ``plan`` and ``bench``; nothing where a tower has no such shape."""
    try:
        return {"shape": write_shape(model_shape(checkpoint, family))}
    except SettingError:
        return {}


def tower_shape_of(shapes: Mapping[str, tuple[int, ...]], vision: VisionSpec, config: Any) -> TowerShape:
    """Sum up the tensors of a tower with its projector.

    Args:
        shapes: Tensor name -> shape.
        vision: Tile size and visual tokens; where the tower takes any size, patches and tokens are those of one token.
        config: The tower's configuration, for what tensors do not tell: heads, and layers that see the whole picture.

    Raises:
        SettingError: There are no layers, or no patch embedding.
    """
    embeddings = [shape for shape in shapes.values() if len(shape) > 2 and shape[1] == 3]
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2 and not _is_table(name)}
    layers = {int(found[1]) for name in matrices if (found := _LAYER.search(name))}
    if not embeddings or not layers:
        raise SettingError("the tower is no vision transformer over patches")
    hidden, patch_values = embeddings[0][0], prod(embeddings[0][1:])
    in_layers = sum(prod(shape) for name, shape in matrices.items() if _LAYER.search(name))
    merging = {name: prod(shape) for name, shape in matrices.items() if _MERGER in name}
    projector = sum(prod(shape) for name, shape in matrices.items() if not _LAYER.search(name) and name not in merging)
    window = 0
    if vision.patches is None or vision.patches.pooled:
        side = embeddings[0][-1]
        patches = (vision.tile_height // side) * (vision.tile_width // side)
    else:
        patches, window = vision.patches.merge**2, (vision.patches.window or 0) ** 2
    return TowerShape(
        hidden=hidden,
        n_layer=len(layers),
        n_head=getattr(config, "num_attention_heads", None) or config.num_heads,
        # As if every feed-forward layer had two matrices, whatever it has.
        n_ff=max(1, round((in_layers / len(layers) - 4 * hidden**2) / (2 * hidden))),
        patches=patches,
        patch_values=patch_values,
        tokens=vision.tokens_per_tile,
        projector_weights=projector,
        windowed_layers=len(layers) - len(config.fullatt_block_indexes) if window else 0,
        window=window,
        merged_layers=len(layers) - config.insert_layer_id - 1 if merging else 0,
        # Attention before four patches are made one is computed for each of them.
        merging_weights=sum((4 if ".self_attn." in name else 1) * size for name, size in merging.items()),
    )


def _is_table(name: str) -> bool:
    return any(word in name for word in _TABLES)
