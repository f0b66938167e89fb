"""A tiny MiniCPM-V 4.6 of random weights: slices of whole tokens, a tower that merges on its way, a Qwen3.5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import _write_json, randomise
from tiny_qwen2_vl import BASE, save
from tiny_qwen3_5 import LAYERS, TEXT

from edge_mllm_export.shapes import load_shape

SHAPE = "minicpm-v-4.6"
VOCABULARY = 557
"""Rows of the embedding table."""


def make_tiny_minicpm_v_4_6(
    directory: Path,
    *,
    seed: int = 0,
    mode: str = "16x",
    scale: int = 56,
    side: int = 10,
    depth: int = 3,
    tied: bool = True,
    layers: tuple[str, ...] = LAYERS,
    nested: bool = False,
    processor: dict[str, Any] | None = None,
    name: str = SHAPE,
    **text: Any,
) -> Path:
    """Write a complete tiny checkpoint directory of MiniCPM-V 4.6 or its successor and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        mode: How many patches become one token.
        scale: Side of a square that a slice has as many pixels as.
        side: Rows of the table of positions.
        depth: Layers of the tower.
        tied: Output head shared with the token embedding, as in the published model.
        layers: Kinds of the language model's layers.
        nested: The image processor's settings lie in processor_config.json, as in the published model.
        processor: Those of them that differ.
        name: Of the shape whose classes, tokens and settings it has.
        **text: Overrides of the text configuration.
    """
    import transformers

    shape = load_shape(name)
    (kind,) = shape.config["architectures"]
    model_class = getattr(transformers, kind)
    base = shape.tokenizer.base_size
    moved = {key: _moved(id_, base) for key, id_ in shape.config.items() if _is_id(key, id_)}
    kinds = {"layer_types": list(layers), "num_hidden_layers": len(layers), "tie_word_embeddings": tied}
    patch = shape.config["vision_config"]["patch_size"]
    config = model_class.config_class(
        text_config=_TEXT | kinds | text,
        vision_config=_VISION | {"num_hidden_layers": depth, "image_size": side * patch, "patch_size": patch},
        insert_layer_id=1,
        tie_word_embeddings=tied,
        downsample_mode=mode,
        **moved,
    )
    model = model_class(config).eval()
    randomise(model, seed, tied=tied)
    save(model, directory, name)
    own = {"scale_resolution": scale, "downsample_mode": mode} | (processor or {})
    settings = shape.processor["image_processor"] | own
    if nested:
        _write_json(directory / "processor_config.json", shape.processor | {"image_processor": settings})
    else:
        _write_json(directory / "preprocessor_config.json", settings)
        _write_json(directory / "processor_config.json", {"processor_class": shape.processor["processor_class"]})
    return directory


def _is_id(name: str, value: Any) -> bool:
    return name.endswith("_id") and name != "insert_layer_id" and value is not None


def _moved(number: int, base: int) -> int:
    """The id in a vocabulary whose added tokens come earlier; those before them stay."""
    return number - base + BASE if number >= base else number


_VISION = {"hidden_size": 48, "intermediate_size": 88, "num_attention_heads": 4}
_TEXT = TEXT | {
    "model_type": "qwen3_5_text",
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25},
    "vocab_size": VOCABULARY,
}
