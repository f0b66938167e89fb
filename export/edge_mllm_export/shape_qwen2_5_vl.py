"""Qwen2.5-VL 3B: configuration and special tokens.

Sources: config.json, tokenizer_config.json, preprocessor_config.json and generation_config.json of
Qwen/Qwen2.5-VL-3B-Instruct. The published config.json has the language model's fields at its top level; here they
stand in ``text_config``, as transformers saves them today. Processor settings and template are Qwen2-VL's.
"""

from __future__ import annotations

from typing import Any

from edge_mllm_export import shape_qwen2_vl
from edge_mllm_export.shape_internvl import QWEN25_TOKENS
from edge_mllm_export.shape_plan import ShapePlan

ADDED_TOKENS = QWEN25_TOKENS
"""Special tokens behind the vocabulary, ids 151643 to 151664."""

_BASE_SIZE = 151_643
_TEXT: dict[str, Any] = {
    "model_type": "qwen2_5_vl_text",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1000000.0},
    "use_sliding_window": False,
    "vocab_size": 151_936,
}
_VISION_TOWER: dict[str, Any] = {
    "model_type": "qwen2_5_vl_vision",
    "depth": 32,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 2048,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "tokens_per_second": 2,
    "window_size": 112,
}


def qwen2_5_vl_3b() -> ShapePlan:
    """A 32-layer tower of width 1280, most of its layers in windows, and Qwen2.5-3B: 3,754,622,976 parameters."""
    ids = shape_qwen2_vl.special_ids(_BASE_SIZE, ADDED_TOKENS)
    ends = {name: ids.pop(name) for name in ("bos_token_id", "eos_token_id")}
    return ShapePlan(
        config={
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "model_type": "qwen2_5_vl",
            **ids,
            "text_config": {**_TEXT, **ends},
            "vision_config": _VISION_TOWER,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        },
        tokenizer=shape_qwen2_vl.tokenizer_plan(_BASE_SIZE, ADDED_TOKENS),
        tokenizer_config=shape_qwen2_vl.tokenizer_settings(131072, ADDED_TOKENS),
        preprocessor=shape_qwen2_vl.preprocessor_settings(),
        processor={},
        generation=shape_qwen2_vl.generation_settings(_BASE_SIZE),
        chat_template=shape_qwen2_vl.CHAT_TEMPLATE,
    )
