"""Qwen2-VL 2B: configuration, special tokens and processor settings.

Sources: config.json, tokenizer_config.json, preprocessor_config.json and generation_config.json of
Qwen/Qwen2-VL-2B-Instruct. The published config.json has the language model's fields at its top level; here they stand
in ``text_config``, as transformers saves them today.
"""

from __future__ import annotations

from typing import Any

from edge_mllm_export.shape_plan import ShapePlan
from edge_mllm_export.synthetic_tokenizer import QWEN2_PRE_TOKENIZER, TokenizerPlan

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Renders to what the published template renders to, for text and pictures."""

_GROUNDING = tuple(f"<|{name}_{end}|>" for name in ("object_ref", "box", "quad") for end in ("start", "end"))
_VISION = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
ADDED_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *_GROUNDING, *_VISION)
"""Special tokens behind the vocabulary, ids 151643 to 151656."""

_BASE_SIZE = 151_643
_TEXT: dict[str, Any] = {
    "model_type": "qwen2_vl_text",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1000000.0},
    "use_sliding_window": False,
    "vocab_size": 151_936,
}
_VISION_TOWER: dict[str, Any] = {
    "model_type": "qwen2_vl_vision",
    "depth": 32,
    "embed_dim": 1280,
    "hidden_size": 1536,
    "mlp_ratio": 4,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


def tokenizer_plan(base_size: int, added: tuple[str, ...] = ADDED_TOKENS) -> TokenizerPlan:
    """A Qwen2-like tokenizer: the special tokens behind a vocabulary of ``base_size``."""
    return TokenizerPlan(base_size=base_size, first=(), added=added, pre_tokenizer=QWEN2_PRE_TOKENIZER)


def tokenizer_settings(max_length: int, added: tuple[str, ...] = ADDED_TOKENS) -> dict[str, Any]:
    """Content of tokenizer_config.json."""
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "additional_special_tokens": list(added[1:]),
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": max_length,
        "split_special_tokens": False,
    }


def preprocessor_settings(min_pixels: int = 3136, max_pixels: int = 12_845_056) -> dict[str, Any]:
    """Content of preprocessor_config.json; the published file allows 16,384 visual tokens per picture."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }


def special_ids(base_size: int, added: tuple[str, ...] = ADDED_TOKENS) -> dict[str, int]:
    """Token ids that config.json names."""
    ids = {text: base_size + place for place, text in enumerate(added)}
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
    }


def generation_settings(base_size: int) -> dict[str, Any]:
    """Content of generation_config.json, as far as it matters for greedy answers."""
    end, text_end = base_size + ADDED_TOKENS.index("<|im_end|>"), base_size
    return {"bos_token_id": text_end, "eos_token_id": [end, text_end], "pad_token_id": text_end}


def qwen2_vl_2b() -> ShapePlan:
    """A 32-layer tower of width 1280 and Qwen2-1.5B: 2,208,985,600 parameters."""
    ids = special_ids(_BASE_SIZE)
    ends = {name: ids.pop(name) for name in ("bos_token_id", "eos_token_id")}
    return ShapePlan(
        config={
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
            **ids,
            "text_config": {**_TEXT, **ends},
            "vision_config": _VISION_TOWER,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        },
        tokenizer=tokenizer_plan(_BASE_SIZE),
        tokenizer_config=tokenizer_settings(32768),
        preprocessor=preprocessor_settings(),
        processor={},
        generation=generation_settings(_BASE_SIZE),
        chat_template=CHAT_TEMPLATE,
    )
