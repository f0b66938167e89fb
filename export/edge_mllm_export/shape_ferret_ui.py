"""Ferret-UI with a Gemma-2B: its published structure with random weights, without the sampler of region features.

Sources: config.json and added_tokens.json of jadechoghari/Ferret-UI-Gemma2b, and the configurations of
google/gemma-2b-it and openai/clip-vit-large-patch14-336 that it is made of.
"""

from __future__ import annotations

from typing import Any

from edge_mllm_export.ferret_original import native_preprocessor
from edge_mllm_export.ferret_original_prompt import IMAGE, chat_template
from edge_mllm_export.shape_gemma3 import FIRST
from edge_mllm_export.shape_plan import ShapePlan
from edge_mllm_export.synthetic_sentencepiece import SENTENCEPIECE_PRE_TOKENIZER
from edge_mllm_export.synthetic_tokenizer import TokenizerPlan

_BASE_SIZE = 256_000
_INSIDE = {106: "<start_of_turn>", 107: "<end_of_turn>"}
_GRIDS = ((2, 1), (1, 2), (2, 2), (1, 3), (3, 1))
"""Rows and columns, in the published order."""


def ferret_ui_gemma2b() -> ShapePlan:
    """CLIP ViT-L/14 at 336 px, the projector, and a Gemma of 2.5 billion parameters with one row more."""
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
    }
    text = {
        "model_type": "gemma",
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "max_position_embeddings": 8192,
        "num_attention_heads": 8,
        "num_hidden_layers": 18,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "vocab_size": _BASE_SIZE + 1,
    }
    config: dict[str, Any] = {
        "architectures": ["FerretUIForConditionalGeneration"],
        "model_type": "ferret_ui",
        "image_grid_pinpoints": [[rows * 336, cols * 336] for rows, cols in _GRIDS],
        "image_token_index": _BASE_SIZE,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "text_config": {**text, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0},
        "vision_config": vision,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return ShapePlan(
        config=config,
        tokenizer=TokenizerPlan(
            base_size=_BASE_SIZE,
            first=FIRST,
            inside=_INSIDE,
            added=(IMAGE,),
            pre_tokenizer=SENTENCEPIECE_PRE_TOKENIZER,
            byte_fallback=True,
        ),
        tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 4096, **names},
        preprocessor=native_preprocessor(config),
        processor={"image_token": IMAGE},
        generation={"bos_token_id": 2, "eos_token_id": [107, 1], "pad_token_id": 0},
        chat_template=chat_template("gemma", begins=1),
    )
