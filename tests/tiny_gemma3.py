"""A tiny Gemma 3 of random weights: SigLIP, pooling, and a decoder with sliding layers and two rotary bases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_models import _disable_progress_bars, _write_json, randomise

VOCABULARY = 661
"""Rows of the embedding table; the tokenizer has fewer tokens, as in the published checkpoints."""
BASE = 640
INSIDE = {10: "<start_of_turn>", 11: "<end_of_turn>", 600: "<start_of_image>", 601: "<end_of_image>"}


def make_tiny_gemma3(
    directory: Path, *, seed: int = 0, tile: int = 64, patch: int = 8, tokens: int = 16, **text: Any
) -> Path:
    """Write a complete tiny Gemma3ForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        tile: Tile edge in pixels.
        patch: Patch edge in pixels.
        tokens: Visual tokens of a tile; a square whose side divides the patches of a tile's side.
        **text: Overrides of the text configuration.
    """
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, GenerationConfig

    from edge_mllm_export.shapes import load_shape, write_tokenizer

    directory.mkdir(parents=True, exist_ok=True)
    shape = load_shape("gemma3-4b")
    first = {number: text for number, text in shape.tokenizer.special.items() if number < 5}
    plan = replace(shape.tokenizer, base_size=BASE, special=first | INSIDE)
    write_tokenizer(directory, plan, shape.tokenizer_config | {"model_max_length": 2048})
    config = Gemma3Config(
        text_config=_TEXT | text,
        vision_config=_VISION | {"image_size": tile, "patch_size": patch},
        mm_tokens_per_image=tokens,
        boi_token_index=600,
        eoi_token_index=601,
        image_token_index=BASE,
        eos_token_id=[1, 11],
    )
    model = Gemma3ForConditionalGeneration(config).eval()
    randomise(model, seed, tied=True)
    _shift_norms(model)
    model.generation_config = GenerationConfig(bos_token_id=2, eos_token_id=[1, 11], pad_token_id=0)
    _disable_progress_bars()
    model.save_pretrained(directory)
    _rename_as_published(directory / "model.safetensors")
    cut = {"image_seq_length": tokens, "size": {"height": tile, "width": tile}}
    _write_json(directory / "preprocessor_config.json", shape.preprocessor | cut)
    settings = {"image_seq_length": tokens, "processor_class": "Gemma3Processor"}
    _write_json(directory / "processor_config.json", settings)
    (directory / "chat_template.jinja").write_text(shape.chat_template, encoding="utf-8")
    return directory


def _shift_norms(model: Any) -> None:
    """This model multiplies with one more than its norms' weights, so the stored ones must lie about zero.

    What layers add is made larger than the token itself, which the tied head would repeat, and attention sharper, so
    that answers depend on pictures.
    """
    import torch

    larger = {"post_attention_layernorm.weight": 4.0, "post_feedforward_layernorm.weight": 2.0, "q_norm.weight": 1.0}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight") and ("language_model" in name or "mm_soft_emb_norm" in name):
                parameter += sum(value for ending, value in larger.items() if name.endswith(ending)) - 1.0


def _rename_as_published(file: Path) -> None:
    """transformers leaves out one step of the tower's names when it saves."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    named = {name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in tensors.items()}
    save_file(named, file, {"format": "pt"})


_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "sliding_window": 24,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "vocab_size": VOCABULARY,
}
_VISION: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vision_use_head": False,
}
