"""What a source will cost, from its configuration files alone: no weights are read, downloaded or made."""

from __future__ import annotations

from edge_mllm.costs.estimate import Ask, costs
from edge_mllm.costs.facts import ModelFacts
from edge_mllm_export.families.inventory import empty_causal_lm, is_tied, makes_a_model
from edge_mllm_export.families.model_shape import model_shape
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.shapes import PREFIX, SHAPES, load_shape
from edge_mllm_export.source.part_bytes import decoder_sizes, tower_sizes
from edge_mllm_export.source.source import describe_source


def facts_of_source(source: str) -> ModelFacts:
    """Sizes, shape and picture cutting of a checkpoint directory, a hub id or ``shape:NAME``.

    Raises:
        SourceError: It leads nowhere, or an export would not open it.
        CheckpointError: A field of its configuration cannot be used.
    """
    checkpoint = describe_source(source)
    family = find_family(checkpoint)
    with makes_a_model(checkpoint, "text_config"):
        model = empty_causal_lm(family.text_config(checkpoint))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with makes_a_model(checkpoint, "vision_config"):
        shape, tower = model_shape(checkpoint, family), family.stored_tower_shapes(checkpoint)
    decoder = family.decoder(checkpoint)
    sizes = decoder_sizes(
        shapes,
        tied=is_tied(checkpoint, family),
        rotary_values=decoder.context_length * shape.decoder.head_dim,
    )
    return ModelFacts(
        name=checkpoint.id,
        context_length=decoder.context_length,
        image=family.image(checkpoint),
        vision=family.vision(checkpoint),
        decoders={"gguf": sizes["gguf"], "onnx": sizes["onnx"]},
        towers=tower_sizes(tower),
        shape=shape,
    )


def largest_shape_within(limit: int, ask: Ask) -> tuple[str, int] | None:
    """The largest of the published shapes that some way of storing fits into ``limit`` bytes of memory.

    Returns:
        Its name and the bytes that its smallest way needs; None where even the smallest shape does not fit.
    """
    found = None
    for name in sorted(SHAPES, key=_weights):
        needed = min(cost.memory_bytes for cost in costs(facts_of_source(PREFIX + name), ask, None))
        if needed > limit:
            break
        found = name, needed
    return found


def _weights(name: str) -> int:
    """A measure that orders language models by size."""
    config = load_shape(name).config
    text = config.get("text_config", config)
    return int(text["num_hidden_layers"] * text["hidden_size"] ** 2)
