"""BlueLM-V-3B: its published structure with random weights; the weights themselves are not public.

Source: Lu et al., arXiv 2411.10640: SigLIP-400M at 384 px, 196 tokens a tile, up to 16 tiles and a thumbnail, a
language model of 2.7 billion parameters. The language model's own sizes are not published: those of a Llama with as
many parameters stand in, and the tokens are Qwen2's.
"""

from __future__ import annotations

from typing import Any

from edge_mllm_export.shape_llava_onevision import CHAT_TEMPLATE, tokenizer_settings
from edge_mllm_export.shape_plan import ShapePlan
from edge_mllm_export.synthetic_tokenizer import QWEN2_PRE_TOKENIZER, TokenizerPlan

ADDED_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
_VOCABULARY = 100_096


def tokenizer_plan(base_size: int) -> TokenizerPlan:
    """A byte-level tokenizer with the special tokens behind a vocabulary of ``base_size``."""
    return TokenizerPlan(base_size=base_size, first=(), added=ADDED_TOKENS, pre_tokenizer=QWEN2_PRE_TOKENIZER)


def grid_pinpoints(tile: int, side: int) -> list[list[int]]:
    """Heights and widths of all grids of up to ``side`` times ``side`` tiles, the largest first.

    Args:
        tile: Tile edge in pixels.
        side: 3 for at most 9 tiles, 4 for at most 16.
    """
    counts = range(side, 0, -1)
    return [[rows * tile, cols * tile] for cols in counts for rows in counts]


def preprocessor_settings(tile: int, side: int) -> dict[str, Any]:
    """Content of preprocessor_config.json."""
    return {
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
        "crop_size": {"height": tile, "width": tile},
        "do_center_crop": False,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_grid_pinpoints": grid_pinpoints(tile, side),
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "relaxation": 0.1,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": tile, "width": tile},
    }


def bluelm_v_3b() -> ShapePlan:
    """SigLIP-400M, the downsampler, and a Llama of 2.73 billion parameters."""
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
    }
    text = {
        "model_type": "llama",
        "hidden_size": 2560,
        "intermediate_size": 6656,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "num_key_value_heads": 20,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "vocab_size": _VOCABULARY,
    }
    base = _VOCABULARY - len(ADDED_TOKENS)
    ids = {"bos_token_id": base, "eos_token_id": base + 2}
    return ShapePlan(
        config={
            "architectures": ["BlueLMVForConditionalGeneration"],
            "model_type": "bluelm_v",
            "image_token_index": base + 3,
            "projector_hidden_act": "gelu",
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "text_config": {**text, **ids},
            "vision_config": vision,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
        tokenizer=tokenizer_plan(base),
        tokenizer_config=tokenizer_settings(4096),
        preprocessor=preprocessor_settings(384, 4),
        processor={"image_token": "<image>"},
        generation={**ids, "pad_token_id": base},
        chat_template=CHAT_TEMPLATE,
    )
