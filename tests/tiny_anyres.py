"""Tiny checkpoints of LLaVA-NeXT (CLIP and a Mistral) and LLaVA-OneVision (SigLIP and a Qwen2), with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_llava import CHAT_TEMPLATE, VOCABULARY, _clip_settings, _text_config, _vision_config, _write_tokenizer
from tiny_models import _disable_progress_bars, _write_json, randomise

NEXT_GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
"""Rows and columns of tiles, as published."""


def make_tiny_llava_next(
    directory: Path,
    *,
    seed: int = 0,
    tile: int = 32,
    patch: int = 8,
    processor: dict[str, Any] | None = None,
) -> Path:
    """Write a complete tiny LlavaNextForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        tile: Tile edge in pixels.
        patch: Patch edge in pixels.
        processor: Fields of preprocessor_config.json that differ.
    """
    from transformers import GenerationConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _write_tokenizer(directory)
    ids = {"bos_token_id": tokenizer.token_to_id("<|endoftext|>"), "eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    points = [[rows * tile, cols * tile] for rows, cols in NEXT_GRIDS]
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **_vision_config(tile, patch)},
        text_config={"model_type": "mistral", "sliding_window": None, **_text_config(), **ids},
        image_token_index=tokenizer.token_to_id("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=points,
    )
    model = LlavaNextForConditionalGeneration(config).eval()
    randomise(model, seed)
    model.generation_config = GenerationConfig(**ids)
    _disable_progress_bars()
    model.save_pretrained(directory)
    settings = _clip_settings(tile) | {
        "image_processor_type": "LlavaNextImageProcessor",
        "aspect_ratio_setting": "anyres",
        "image_grid_pinpoints": points,
        "do_pad": True,
    }
    _write_json(directory / "preprocessor_config.json", settings | (processor or {}))
    _write_json(
        directory / "processor_config.json", {"processor_class": "LlavaNextProcessor", "image_token": "<image>"}
    )
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return directory


def make_tiny_llava_onevision(
    directory: Path,
    *,
    seed: int = 0,
    tile: int = 32,
    patch: int = 8,
    most: int = 9,
) -> Path:
    """Write a complete tiny LlavaOnevisionForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        tile: Tile edge in pixels.
        patch: Patch edge in pixels.
        most: Tiles whose tokens a stitched map may have.
    """
    from transformers import GenerationConfig, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    from edge_mllm_export.shapes import load_shape, write_tokenizer

    directory.mkdir(parents=True, exist_ok=True)
    shape = load_shape("llava-onevision-0.5b")
    plan = replace(shape.tokenizer, base_size=VOCABULARY - len(shape.tokenizer.added))
    tokenizer = write_tokenizer(directory, plan, shape.tokenizer_config | {"model_max_length": 2048})
    grids = [[rows * tile, cols * tile] for rows in range(1, 7) for cols in range(1, 7)]
    cut = {"image_grid_pinpoints": grids, "size": {"height": tile, "width": tile}}
    stitched = {"num_image_tokens": (tile // patch) ** 2, "vision_aspect_ratio": f"anyres_max_{most}"}
    ids = {"bos_token_id": tokenizer.token_to_id("<|endoftext|>"), "eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **_vision_config(tile, patch)},
        text_config={"model_type": "qwen2", **_text_config(), **ids, "tie_word_embeddings": True},
        image_token_index=tokenizer.token_to_id("<image>"),
        video_token_index=tokenizer.token_to_id("<video>"),
        image_grid_pinpoints=grids,
        vision_aspect_ratio=f"anyres_max_{most}",
        tie_word_embeddings=True,
    )
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    randomise(model, seed, tied=True)
    model.generation_config = GenerationConfig(**ids)
    _disable_progress_bars()
    model.save_pretrained(directory)
    _write_json(directory / "preprocessor_config.json", shape.preprocessor | cut)
    _write_json(directory / "processor_config.json", shape.processor | stitched)
    (directory / "chat_template.jinja").write_text(shape.chat_template, encoding="utf-8")
    return directory
