"""A tiny Qwen3-VL of random weights: a tower whose layers feed the first layers of a Qwen3 with interleaved M-RoPE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import _write_json, randomise
from tiny_qwen2_vl import VOCABULARY, ends, ids, save

SHAPE = "qwen3-vl-2b"
SIZE = {"shortest_edge": 32 * 32 * 4, "longest_edge": 32 * 32 * 64}
"""Least and most pixels of a picture, fewer than the published ones."""


def make_tiny_qwen3_vl(
    directory: Path,
    *,
    seed: int = 0,
    tied: bool = True,
    size: dict[str, int] | None = SIZE,
    depth: int = 4,
    deepstack: tuple[int, ...] = (0, 2),
    **text: Any,
) -> Path:
    """Write a complete tiny Qwen3VLForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        tied: Output head shared with the token embedding, as in the published 2B and 4B.
        size: Of preprocessor_config.json; None keeps the published one.
        depth: Layers of the tower.
        deepstack: Those of them whose features go to the language model.
        **text: Overrides of the text configuration.
    """
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vision = {
        "depth": depth,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_heads": 4,
        "num_position_embeddings": 36,
        "out_hidden_size": (_TEXT | text)["hidden_size"],
        "deepstack_visual_indexes": list(deepstack),
    }
    config = Qwen3VLConfig(
        text_config=_TEXT | ends(SHAPE) | text, vision_config=vision, tie_word_embeddings=tied, **ids(SHAPE)
    )
    model = Qwen3VLForConditionalGeneration(config).eval()
    randomise(model, seed, tied=tied)
    preprocessor = save(model, directory, SHAPE)
    _write_json(directory / "preprocessor_config.json", preprocessor | ({} if size is None else {"size": size}))
    return directory


_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "rope_theta": 5000000.0,
    "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [24, 20, 20]},
    "rms_norm_eps": 1e-6,
    "vocab_size": VOCABULARY,
}
