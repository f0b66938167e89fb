"""A tiny Qwen3.5 of random weights: attention, and gated delta nets with more heads of values than of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import _write_json, randomise
from tiny_qwen2_vl import VOCABULARY, ends, ids, save

SHAPE = "qwen3.5-0.8b"
SIZE = {"shortest_edge": 32 * 32 * 4, "longest_edge": 32 * 32 * 64}
"""Least and most pixels of a picture, fewer than the published ones."""
LAYERS = ("linear_attention", "linear_attention", "full_attention", "linear_attention", "full_attention")


def make_tiny_qwen3_5(
    directory: Path,
    *,
    seed: int = 0,
    tied: bool = True,
    size: dict[str, int] | None = SIZE,
    depth: int = 3,
    layers: tuple[str, ...] = LAYERS,
    **text: Any,
) -> Path:
    """Write a complete tiny Qwen3_5ForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        tied: Output head shared with the token embedding, as in the published 0.8B, 2B and 4B.
        size: Of preprocessor_config.json; None keeps the published one.
        depth: Layers of the tower.
        layers: Kinds of the language model's layers.
        **text: Overrides of the text configuration.
    """
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    vision = {
        "depth": depth,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_heads": 4,
        "num_position_embeddings": 36,
        "out_hidden_size": (TEXT | text)["hidden_size"],
    }
    kinds = {"layer_types": list(layers), "num_hidden_layers": len(layers)}
    config = Qwen3_5Config(
        text_config=TEXT | kinds | ends(SHAPE) | text, vision_config=vision, tie_word_embeddings=tied, **ids(SHAPE)
    )
    model = Qwen3_5ForConditionalGeneration(config).eval()
    randomise(model, seed, tied=tied)
    preprocessor = save(model, directory, SHAPE)
    _write_json(directory / "preprocessor_config.json", preprocessor | ({} if size is None else {"size": size}))
    return directory


TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 32,
    "max_position_embeddings": 4096,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000000.0,
        "partial_rotary_factor": 0.25,
        "mrope_interleaved": True,
        "mrope_section": [6, 5, 5],
    },
    "rms_norm_eps": 1e-6,
    "vocab_size": VOCABULARY,
}
