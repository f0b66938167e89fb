"""LLaVA-interleave 0.5B, the smallest of LLaVA's own layout: configuration, special tokens and processor settings.

Sources: the configuration files of llava-hf/llava-interleave-qwen-0.5b-hf.
"""

from __future__ import annotations

from edge_mllm_export.shape_llava_onevision import ADDED_TOKENS, CHAT_TEMPLATE, tokenizer_settings
from edge_mllm_export.shape_plan import ShapePlan
from edge_mllm_export.synthetic_tokenizer import QWEN2_PRE_TOKENIZER, TokenizerPlan

_BASE_SIZE = 151_643
_ADDED = ADDED_TOKENS[:-1]
"""Those of LLaVA-OneVision without its token for videos."""


def llava_interleave_0_5b() -> ShapePlan:
    """SigLIP-400M at 384 px and Qwen1.5-0.5B with a tied head."""
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_act": "gelu_pytorch_tanh",
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
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "vocab_size": 152_000,
    }
    ids = {"bos_token_id": 151_643, "eos_token_id": 151_645}
    return ShapePlan(
        config={
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "image_token_index": _BASE_SIZE + _ADDED.index("<image>"),
            "projector_hidden_act": "gelu",
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "text_config": {**text, **ids},
            "vision_config": vision,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
        tokenizer=TokenizerPlan(base_size=_BASE_SIZE, first=(), added=_ADDED, pre_tokenizer=QWEN2_PRE_TOKENIZER),
        tokenizer_config=tokenizer_settings(32768) | {"processor_class": "LlavaProcessor"},
        preprocessor={
            "image_processor_type": "SiglipImageProcessor",
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": 384, "width": 384},
        },
        processor={"image_token": "<image>", "processor_class": "LlavaProcessor"},
        generation=ids,
        chat_template=CHAT_TEMPLATE,
    )
