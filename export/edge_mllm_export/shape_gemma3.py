"""Gemma 3 4B: configuration, special tokens and processor settings.

Sources: config.json, tokenizer_config.json, preprocessor_config.json and generation_config.json of
google/gemma-3-4b-it, as far as they differ from the defaults of transformers' classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_mllm_export.shape_plan import ShapePlan
from edge_mllm_export.synthetic_sentencepiece import SENTENCEPIECE_PRE_TOKENIZER
from edge_mllm_export.synthetic_tokenizer import TokenizerPlan

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set first = (messages[0]['content'] if messages[0]['content'] is string "
    "else messages[0]['content'][0]['text']) + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ first if loop.first else '' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<start_of_image>"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""Renders to what the published template renders to, for text and pictures."""

FIRST = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
"""Special tokens with the ids 0 to 4."""
SOFT_TOKEN = "<image_soft_token>"  # noqa: S105  (a token of the vocabulary)
_INSIDE = {105: "<start_of_turn>", 106: "<end_of_turn>", 255_999: "<start_of_image>", 256_000: "<end_of_image>"}
_BASE_SIZE = 262_144
_TEXT: dict[str, Any] = {
    "model_type": "gemma3_text",
    "head_dim": 256,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "max_position_embeddings": 131_072,
    "num_attention_heads": 8,
    "num_hidden_layers": 34,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "sliding_window": 1024,
    "vocab_size": 262_208,
}
_VISION_TOWER: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}


def tokenizer_plan(base_size: int, inside: Mapping[int, str]) -> TokenizerPlan:
    """A tokenizer like Gemma's with the soft token behind a vocabulary of ``base_size``."""
    return TokenizerPlan(
        base_size=base_size,
        first=FIRST,
        inside=inside,
        added=(SOFT_TOKEN,),
        pre_tokenizer=SENTENCEPIECE_PRE_TOKENIZER,
        byte_fallback=True,
    )


def tokenizer_settings(max_length: int) -> dict[str, Any]:
    """Content of tokenizer_config.json."""
    return {
        "tokenizer_class": "GemmaTokenizer",
        "processor_class": "Gemma3Processor",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": SOFT_TOKEN,
        "extra_special_tokens": {
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": SOFT_TOKEN,
        },
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
    }


def preprocessor_settings(tile: int, tokens: int) -> dict[str, Any]:
    """Content of preprocessor_config.json."""
    return {
        "image_processor_type": "Gemma3ImageProcessor",
        "processor_class": "Gemma3Processor",
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_pan_and_scan": None,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_seq_length": tokens,
        "image_std": [0.5, 0.5, 0.5],
        "pan_and_scan_max_num_crops": None,
        "pan_and_scan_min_crop_size": None,
        "pan_and_scan_min_ratio_to_activate": None,
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": tile, "width": tile},
    }


def gemma3_4b() -> ShapePlan:
    """SigLIP-400M at 896 pixels and a decoder of 34 layers: 4,300,079,472 parameters."""
    return ShapePlan(
        config={
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "boi_token_index": 255_999,
            "eoi_token_index": 256_000,
            "eos_token_id": [1, 106],
            "image_token_index": _BASE_SIZE,
            "mm_tokens_per_image": 256,
            "text_config": _TEXT,
            "vision_config": _VISION_TOWER,
            "torch_dtype": "bfloat16",
        },
        tokenizer=tokenizer_plan(_BASE_SIZE, _INSIDE),
        tokenizer_config=tokenizer_settings(131_072),
        preprocessor=preprocessor_settings(896, 256),
        processor={"image_seq_length": 256, "processor_class": "Gemma3Processor"},
        generation={"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0},
        chat_template=CHAT_TEMPLATE,
    )
