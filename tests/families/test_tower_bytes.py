"""``plan``'s bytes of every family's tower against graphs that are written, in every recipe."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
from family_makers import MAKERS, make_tiny

from edge_mllm_export.checkpoint.checkpoint import Checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.probes import draw_picture
from edge_mllm_export.source.part_bytes import tower_sizes
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.write.vision import tower as vision_tower
from edge_mllm_quant.recipes.recipe import find_recipe, recipe_names
from edge_mllm_quant.tower.tower import quantise_tower
from edge_mllm_quant.tower.watching import Feeds

PICTURES = ((90, 60), (64, 64))


class Tower:
    """One family's tower: what is told of it, its graph, and inputs for it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        family = find_family(checkpoint)
        spec = family.vision(checkpoint)
        self.told = {part.recipe: part.weight_bytes for part in tower_sizes(family.stored_tower_shapes(checkpoint))}
        self.tiles = spec.patches is None
        shape = spec.patches or (spec.tile_height, spec.tile_width)
        self._graph = vision_tower.trace_tower(family.build_tower(checkpoint), shape, "mha")
        pictures = [draw_picture(width, height, seed=1) for width, height in PICTURES]
        self.samples: tuple[Feeds, ...] = vision_tower.tower_samples(checkpoint, family, pictures)[:4]

    def graph(self) -> Any:
        """A copy that may be changed."""
        copy = type(self._graph)()
        copy.CopyFrom(self._graph)
        return copy


@pytest.fixture(scope="module", params=MAKERS)
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tower:
    folder = tmp_path_factory.mktemp("bytes")
    return Tower(resolve_source(str(make_tiny(request.param, folder)), folder))


def stored(model: Any) -> int:
    """Bytes of constants, without scalars and the integers of shapes."""
    import onnx

    tensors = [each for each in model.graph.initializer if each.dims and each.data_type != onnx.TensorProto.INT64]
    return sum(onnx.numpy_helper.to_array(each).nbytes for each in tensors)


@pytest.mark.parametrize("recipe", recipe_names("vision"))
def test_bytes_are_exact(tower: Tower, recipe: str) -> None:
    chosen = find_recipe("vision", recipe)
    samples = tower.samples if chosen.fixed_scales else ()
    made = quantise_tower(tower.graph(), chosen, samples)
    assert tower.told[recipe] + _migrated(made.model) == stored(made.model)


def test_bytes_are_exact_with_attention_in_integers(tower: Tower) -> None:
    """Only towers of tiles have it: the number of tokens has to be known, and to be more than four."""
    made = quantise_tower(tower.graph(), find_recipe("vision", "int8"), integer_from=5)
    kinds = [node.op_type for node in made.model.graph.node]
    assert ("MultiHeadAttention" in kinds) != tower.tiles
    assert ("MatMulIntegerToFloat" in kinds) == tower.tiles
    assert tower.told["int8"] == stored(made.model)


def test_samples_add_what_migration_adds(tower: Tower) -> None:
    made = quantise_tower(tower.graph(), find_recipe("vision", "int8"), tower.samples)
    extra = _migrated(made.model)
    assert (extra > 0) == (made.report["migration"] == "all")
    assert tower.told["int8"] + extra == stored(made.model)


def _migrated(model: Any) -> int:
    """Bytes of the factors that migration of channels adds where pictures ask for it: no plan can know them."""
    return sum(4 * prod(each.dims) for each in model.graph.initializer if each.name.endswith("_migration"))
