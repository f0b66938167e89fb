"""A tiny checkpoint with BlueLM-V-3B's structure and random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tiny_llava import VOCABULARY, _text_config, _vision_config
from tiny_models import _disable_progress_bars, _write_json, randomise


def grid_pinpoints(tile: int, side: int) -> list[list[int]]:
    """Heights and widths of all grids of up to ``side`` times ``side`` tiles, the largest first.

    Args:
        tile: Tile edge in pixels.
        side: 3 for at most 9 tiles, 4 for at most 16.
    """
    counts = range(side, 0, -1)
    return [[rows * tile, cols * tile] for cols in counts for rows in counts]


def make_tiny_bluelm_v(
    directory: Path,
    *,
    seed: int = 0,
    tile: int = 24,
    patch: int = 8,
    side: int = 4,
) -> Path:
    """Write a complete tiny BlueLMVForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        tile: Tile edge in pixels; an odd number of patches, as in the true model, so that a row of zeros is added.
        patch: Patch edge in pixels.
        side: Most tiles across and down.
    """
    from transformers import GenerationConfig

    from edge_mllm_export.families.bluelm_v.model import BlueLMVConfig, BlueLMVForConditionalGeneration
    from edge_mllm_export.shapes import load_shape, write_tokenizer

    directory.mkdir(parents=True, exist_ok=True)
    shape = load_shape("bluelm-v-3b")
    plan = replace(shape.tokenizer, base_size=VOCABULARY - len(shape.tokenizer.added))
    tokenizer = write_tokenizer(directory, plan, shape.tokenizer_config | {"model_max_length": 2048})
    edges = {"height": tile, "width": tile}
    cut = {"crop_size": edges, "image_grid_pinpoints": grid_pinpoints(tile, side), "size": edges}
    ids = {"bos_token_id": tokenizer.token_to_id("<|endoftext|>"), "eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    config = BlueLMVConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **_vision_config(tile, patch)},
        text_config={"model_type": "llama", **_text_config(), **ids},
        image_token_index=tokenizer.token_to_id("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = BlueLMVForConditionalGeneration(config).eval()
    randomise(model, seed)
    model.generation_config = GenerationConfig(**ids)
    _disable_progress_bars()
    model.save_pretrained(directory)
    _write_json(directory / "preprocessor_config.json", shape.preprocessor | cut)
    _write_json(directory / "processor_config.json", {"image_token": "<image>"})
    (directory / "chat_template.jinja").write_text(shape.chat_template, encoding="utf-8")
    return directory
