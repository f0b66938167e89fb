"""LLaVA-OneVision 0.5B: configuration, special tokens and processor settings.

Sources: the configuration files of llava-hf/llava-onevision-qwen2-0.5b-ov-hf.
"""

from __future__ import annotations

from typing import Any

from edge_mllm_export.shape_plan import ShapePlan
from edge_mllm_export.synthetic_tokenizer import QWEN2_PRE_TOKENIZER, TokenizerPlan

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Renders to what the published template renders to, for text and pictures."""
ADDED_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
"""Ids 151643 to 151647."""


def tokenizer_plan(base_size: int) -> TokenizerPlan:
    """A Qwen2-like tokenizer with the special tokens behind a vocabulary of ``base_size``."""
    return TokenizerPlan(base_size=base_size, first=(), added=ADDED_TOKENS, pre_tokenizer=QWEN2_PRE_TOKENIZER)


def tokenizer_settings(max_length: int) -> dict[str, Any]:
    """Content of tokenizer_config.json."""
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "processor_class": "LlavaOnevisionProcessor",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
    }


def grid_pinpoints(tile: int) -> list[list[int]]:
    """Heights and widths of all grids of up to six by six tiles."""
    return [[rows * tile, cols * tile] for rows in range(1, 7) for cols in range(1, 7)]


def preprocessor_settings(tile: int) -> dict[str, Any]:
    """Content of preprocessor_config.json."""
    return {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "processor_class": "LlavaOnevisionProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_grid_pinpoints": grid_pinpoints(tile),
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": tile, "width": tile},
    }


def processor_settings(tokens: int, most: int = 9) -> dict[str, Any]:
    """Content of processor_config.json."""
    return {
        "image_token": "<image>",
        "num_image_tokens": tokens,
        "processor_class": "LlavaOnevisionProcessor",
        "video_token": "<video>",
        "vision_aspect_ratio": f"anyres_max_{most}",
        "vision_feature_select_strategy": "full",
    }


def llava_onevision_0_5b() -> ShapePlan:
    """SigLIP-400M at 384 px and Qwen2-0.5B with a tied head."""
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
    }
    text = {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "vocab_size": 152000,
    }
    ids = {"bos_token_id": 151643, "eos_token_id": 151645}
    return ShapePlan(
        config={
            "architectures": ["LlavaOnevisionForConditionalGeneration"],
            "model_type": "llava_onevision",
            "image_grid_pinpoints": grid_pinpoints(384),
            "image_token_index": 151646,
            "video_token_index": 151647,
            "projector_hidden_act": "gelu",
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "text_config": {**text, **ids},
            "vision_config": vision,
            "vision_aspect_ratio": "anyres_max_9",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
        tokenizer=tokenizer_plan(151643),
        tokenizer_config=tokenizer_settings(32768),
        preprocessor=preprocessor_settings(384),
        processor=processor_settings(729),
        generation={**ids, "pad_token_id": 151643},
        chat_template=CHAT_TEMPLATE,
    )
