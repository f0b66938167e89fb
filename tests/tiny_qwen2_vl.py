"""Tiny Qwen2-VL and Qwen2.5-VL of random weights: a native-resolution tower and a Qwen2 with M-RoPE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_models import _disable_progress_bars, _write_json, randomise

from edge_mllm_export.shapes import load_shape, write_tokenizer

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

    vision = {"depth": depth, "embed_dim": 64, "hidden_size": (_TEXT | text)["hidden_size"], "num_heads": 4}
    config = Qwen2VLConfig(
        text_config=_TEXT | ends("qwen2-vl-2b") | text,
        vision_config=vision,
        tie_word_embeddings=tied,
        **ids("qwen2-vl-2b"),
    )
    model = Qwen2VLForConditionalGeneration(config).eval()
    randomise(model, seed, tied=tied)
    preprocessor = save(model, directory, "qwen2-vl-2b")
    _write_json(directory / "preprocessor_config.json", preprocessor | {"max_pixels": max_pixels})
    return directory


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
        text_config=_TEXT | ends("qwen2.5-vl-3b") | text,
        vision_config=vision,
        tie_word_embeddings=tied,
        **ids("qwen2.5-vl-3b"),
    )
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    randomise(model, seed, tied=tied)
    preprocessor = save(model, directory, "qwen2.5-vl-3b")
    _write_json(directory / "preprocessor_config.json", preprocessor | {"max_pixels": max_pixels})
    return directory


def ids(shape: str) -> dict[str, int]:
    """Token ids that config.json has at its top level, behind the small vocabulary."""
    return {name: _moved(shape, id_) for name, id_ in load_shape(shape).config.items() if name.endswith("token_id")}


def ends(shape: str) -> dict[str, int]:
    """Token ids that the language model's configuration has."""
    text = load_shape(shape).config["text_config"]
    return {name: _moved(shape, text[name]) for name in ("bos_token_id", "eos_token_id")}


def _moved(shape: str, id_: int) -> int:
    return id_ - load_shape(shape).tokenizer.base_size + BASE


def save(model: Any, directory: Path, name: str) -> dict[str, Any]:
    """Write a model with the tokenizer and template of a shape; return the shape's preprocessor_config.json."""
    from transformers import GenerationConfig

    directory.mkdir(parents=True, exist_ok=True)
    shape = load_shape(name)
    settings = shape.tokenizer_config | {"model_max_length": 4096}
    write_tokenizer(directory, replace(shape.tokenizer, base_size=BASE), settings)
    end, plain = (BASE + shape.tokenizer.added.index(token) for token in ("<|im_end|>", "<|endoftext|>"))
    model.generation_config = GenerationConfig(bos_token_id=plain, eos_token_id=[end, plain], pad_token_id=plain)
    _disable_progress_bars()
    model.save_pretrained(directory)
    (directory / "chat_template.jinja").write_text(shape.chat_template, encoding="utf-8")
    return shape.preprocessor


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
