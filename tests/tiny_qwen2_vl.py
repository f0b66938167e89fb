"""Tiny Qwen2-VL and Qwen2.5-VL of random weights: a native-resolution tower and a Qwen2 with M-RoPE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import _disable_progress_bars, _write_json, randomise

VOCABULARY = 541
"""Rows of the embedding table; the tokenizer has fewer tokens, as in the published checkpoints."""
BASE = 500


def make_tiny_qwen2_vl(
    directory: Path,
    *,
    seed: int = 0,
    tied: bool = True,
    max_pixels: int = 28 * 28 * 64,
    depth: int = 2,
    **text: Any,
) -> Path:
    """Write a complete tiny Qwen2VLForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        tied: Output head shared with the token embedding, as in the published 2B.
        max_pixels: Of preprocessor_config.json.
        depth: Layers of the tower.
        **text: Overrides of the text configuration.
    """
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    from edge_mllm_export import shape_qwen2_vl

    vision = {"depth": depth, "embed_dim": 64, "hidden_size": (_TEXT | text)["hidden_size"], "num_heads": 4}
    config = Qwen2VLConfig(
        text_config=_TEXT | _ends(shape_qwen2_vl.ADDED_TOKENS) | text,
        vision_config=vision,
        tie_word_embeddings=tied,
        **_ids(shape_qwen2_vl.ADDED_TOKENS),
    )
    model = Qwen2VLForConditionalGeneration(config).eval()
    randomise(model, seed, tied=tied)
    return _save(model, directory, shape_qwen2_vl.ADDED_TOKENS, max_pixels)


def make_tiny_qwen2_5_vl(
    directory: Path,
    *,
    seed: int = 0,
    tied: bool = True,
    max_pixels: int = 28 * 28 * 64,
    depth: int = 4,
    whole: tuple[int, ...] = (1, 3),
    window: int = 112,
    **text: Any,
) -> Path:
    """Write a complete tiny Qwen2_5_VLForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        tied: Output head shared with the token embedding, as in the published 3B.
        max_pixels: Of preprocessor_config.json.
        depth: Layers of the tower.
        whole: Those of them that see the whole picture.
        window: Side of the others' windows in pixels.
        **text: Overrides of the text configuration.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from edge_mllm_export import shape_qwen2_5_vl

    vision = {
        "depth": depth,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_heads": 4,
        "out_hidden_size": (_TEXT | text)["hidden_size"],
        "fullatt_block_indexes": list(whole),
        "window_size": window,
    }
    config = Qwen2_5_VLConfig(
        text_config=_TEXT | _ends(shape_qwen2_5_vl.ADDED_TOKENS) | text,
        vision_config=vision,
        tie_word_embeddings=tied,
        **_ids(shape_qwen2_5_vl.ADDED_TOKENS),
    )
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    randomise(model, seed, tied=tied)
    return _save(model, directory, shape_qwen2_5_vl.ADDED_TOKENS, max_pixels)


def _ids(added: tuple[str, ...]) -> dict[str, int]:
    from edge_mllm_export.shape_qwen2_vl import special_ids

    return {name: id_ for name, id_ in special_ids(BASE, added).items() if name not in _ENDS}


def _ends(added: tuple[str, ...]) -> dict[str, int]:
    from edge_mllm_export.shape_qwen2_vl import special_ids

    return {name: special_ids(BASE, added)[name] for name in _ENDS}


_ENDS = ("bos_token_id", "eos_token_id")


def _save(model: Any, directory: Path, added: tuple[str, ...], max_pixels: int) -> Path:
    from transformers import GenerationConfig

    from edge_mllm_export import shape_qwen2_vl
    from edge_mllm_export.synthetic_tokenizer import write_tokenizer

    directory.mkdir(parents=True, exist_ok=True)
    settings = shape_qwen2_vl.tokenizer_settings(4096, added)
    write_tokenizer(directory, shape_qwen2_vl.tokenizer_plan(BASE, added), settings)
    model.generation_config = GenerationConfig(**shape_qwen2_vl.generation_settings(BASE))
    _disable_progress_bars()
    model.save_pretrained(directory)
    _write_json(directory / "preprocessor_config.json", shape_qwen2_vl.preprocessor_settings(max_pixels=max_pixels))
    (directory / "chat_template.jinja").write_text(shape_qwen2_vl.CHAT_TEMPLATE, encoding="utf-8")
    return directory


_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "rms_norm_eps": 1e-6,
    "vocab_size": VOCABULARY,
}
