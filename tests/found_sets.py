"""Fields and values of configuration files that public repositories carry; docs/families.md says where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from config_sets import Files

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 0.00392156862745098}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
STEPS = dict.fromkeys(("do_convert_rgb", "do_normalize", "do_pad", "do_rescale", "do_resize"), True)
TILES = STEPS | HALF | {"do_image_splitting": True, "max_image_size": {"longest_edge": 512}, "resample": 1}
SO400M = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
VLLAMA = {
    "architectures": ["VLlama3ForCausalLM"],
    "is_llama_config": True,
    "neftune_noise_alpha": 0.0,
    "pixel_shuffle_factor": 4,
    "qk_layer_norms": False,
    "rope_interleaved": False,
    "torch_dtype": "bfloat16",
    "use_resampler": False,
}
"""Fields of older code that SmolVLM2's language model carries."""


def smolvlm2() -> Files:
    """Sizes that are the class's own are left out, and the padding token lies behind the vocabulary."""
    config = {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "image_token_id": 49190,
        "model_type": "smolvlm",
        "pad_token_id": 128002,
        "scale_factor": 4,
        "text_config": VLLAMA
        | {
            "head_dim": 64,
            "hidden_size": 960,
            "intermediate_size": 2560,
            "max_position_embeddings": 8192,
            "model_type": "llama",
            "num_attention_heads": 15,
            "num_hidden_layers": 32,
            "num_key_value_heads": 5,
            "pad_token_id": 2,
            "rms_norm_eps": 1e-05,
            "rope_theta": 100000,
            "vocab_size": 49280,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_reentrant_checkpointing": False,
        "vision_config": {
            "hidden_size": 768,
            "image_size": 512,
            "max_image_size": {"longest_edge": 512},
            "model_type": "smolvlm_vision",
            "num_attention_heads": 12,
            "patch_size": 16,
            "size": {"longest_edge": 2048},
            "tie_word_embeddings": False,
            "use_base_siglip": False,
        },
        "vocab_size": 49280,
    }
    kind = {"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 2048}}
    videos = {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}}}
    return {"config": config, "preprocessor_config": TILES | kind | videos}


def granite_docling() -> Files:
    config = {
        "architectures": ["Idefics3ForConditionalGeneration"],
        "bos_token_id": 100264,
        "dtype": "bfloat16",
        "eos_token_id": 100257,
        "image_token_id": 100270,
        "model_type": "idefics3",
        "pad_token_id": 100257,
        "scale_factor": 4,
        "text_config": {
            "_name_or_path": "models/granitev06_hf_ai4k_sft_data_v4",
            "architectures": ["LlamaForCausalLM"],
            "head_dim": 64,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "max_position_embeddings": 8192,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": 9,
            "num_hidden_layers": 30,
            "num_key_value_heads": 3,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-05,
            "rope_scaling": None,
            "rope_theta": 100000.0,
            "tie_word_embeddings": True,
            "vocab_size": 100352,
        },
        "tie_word_embeddings": True,
        "vision_config": {
            "hidden_size": 768,
            "image_size": 512,
            "intermediate_size": 3072,
            "max_image_size": {"longest_edge": 512},
            "model_type": "idefics3_vision",
            "num_attention_heads": 12,
            "num_hidden_layers": 12,
            "patch_size": 16,
            "size": {"longest_edge": 512},
        },
        "vocab_size": 100352,
    }
    kind = {"image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": 2048}}
    return {"config": config, "preprocessor_config": TILES | kind}


def bunny_phi(**fields: Any) -> Files:
    config = {
        "_name_or_path": "BAAI/bunny-phi-2-siglip",
        "architectures": ["BunnyPhiForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_bunny_phi.BunnyPhiForCausalLM"},
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "hidden_act": "gelu_new",
        "hidden_size": 2560,
        "image_aspect_ratio": "pad",
        "intermediate_size": 10240,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048,
        "mm_hidden_size": 1152,
        "mm_projector_lr": 2e-05,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "model_type": "bunny-phi",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "partial_rotary_factor": 0.4,
        "qk_layernorm": False,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_mm_proj": True,
        "vocab_size": 50295,
    }
    return {"config": config | fields}


def llava_next() -> Files:
    """The language model's width, layers and heads are those of its class."""
    config = {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "ignore_index": -100,
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "image_token_index": 32000,
        "model_type": "llava_next",
        "projector_hidden_act": "gelu",
        "text_config": {
            "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2",
            "architectures": ["MistralForCausalLM"],
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mistral",
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "torch_dtype": "bfloat16",
            "vocab_size": 32064,
        },
        "use_image_newline_parameter": True,
        "vision_config": {
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "model_type": "clip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
            "vocab_size": 32000,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "vocab_size": 32064,
    }
    kind = {"aspect_ratio_setting": "anyres", "image_processor_type": "LlavaNextImageProcessor", "resample": 3}
    size = {"crop_size": {"height": 336, "width": 336}, "do_center_crop": True, "size": {"shortest_edge": 336}}
    points = {"image_grid_pinpoints": config["image_grid_pinpoints"], "rescale_factor": 0.00392156862745098}
    return {"config": config, "preprocessor_config": STEPS | CLIP | kind | size | points}


def onevision() -> Files:
    points = [[rows * 384, columns * 384] for rows in range(1, 7) for columns in range(1, 7)]
    config = {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "image_grid_pinpoints": points,
        "image_token_index": 151646,
        "model_type": "llava_onevision",
        "text_config": {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "max_position_embeddings": 32768,
            "model_type": "qwen2",
            "num_attention_heads": 28,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "rope_theta": 1000000.0,
            "vocab_size": 152064,
        },
        "video_token_index": 151647,
        "vision_aspect_ratio": "anyres_max_9",
        "vision_config": SO400M | {"num_hidden_layers": 26, "vision_use_head": False},
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }
    kind = {"image_processor_type": "LlavaOnevisionImageProcessor", "resample": 3, "image_grid_pinpoints": points}
    return {"config": config, "preprocessor_config": STEPS | HALF | kind | {"size": {"height": 384, "width": 384}}}


INTERN_VIT = {
    "architectures": ["InternVisionModel"],
    "attention_bias": True,
    "dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "initializer_factor": 0.1,
    "layer_norm_eps": 1e-06,
    "layer_scale_init_value": 0.1,
    "model_type": "internvl_vision",
    "norm_type": "layer_norm",
    "num_channels": 3,
    "projection_dropout": 0.0,
    "torch_dtype": "bfloat16",
    "use_absolute_position_embeddings": True,
    "use_mask_token": False,
    "use_mean_pooling": True,
    "use_qk_norm": False,
}
"""As InternVL's own converter writes it."""


def internvl_hf() -> Files:
    config = {
        "architectures": ["InternVLForConditionalGeneration"],
        "downsample_ratio": 0.5,
        "image_token_id": 151671,
        "model_type": "internvl",
        "projector_hidden_act": "gelu",
        "text_config": {
            "architectures": ["Qwen3ForCausalLM"],
            "head_dim": 128,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "max_position_embeddings": 40960,
            "model_type": "qwen3",
            "num_attention_heads": 16,
            "num_hidden_layers": 28,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000,
            "vocab_size": 151936,
        },
        "vision_config": INTERN_VIT
        | {
            "hidden_size": 1024,
            "image_size": [448, 448],
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": [14, 14],
        },
    }
    kind = {"image_processor_type": "GotOcr2ImageProcessorFast", "processor_class": "InternVLProcessor"}
    size = {"crop_to_patches": True, "max_patches": 12, "min_patches": 1, "size": {"height": 448, "width": 448}}
    return {"config": config, "preprocessor_config": STEPS | HALF | kind | size | {"do_pad": None, "resample": 3}}


_SIZES = ("crop_size", "image_seq_length", "max_pixels", "min_pixels", "pad_size")
_CHOICES = ("device", "disable_grouping", "do_center_crop", "do_pad", "input_data_format", "return_tensors")
SAVED_BY_5 = {
    "data_format": "channels_first",
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "merge_size": 2,
    "patch_size": 16,
    "processor_class": "Qwen3VLProcessor",
    "resample": 3,
    "temporal_patch_size": 2,
} | dict.fromkeys((*_SIZES, *_CHOICES))
"""The image processor inside processor_config.json, as transformers 5 saves Qwen3-VL's."""


def qwen3_vl_8b() -> Files:
    """Untied, with a deeper and wider tower than the 2B and 4B."""
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "image_token_id": 151655,
        "model_type": "qwen3_vl",
        "text_config": {
            "dtype": "bfloat16",
            "head_dim": 128,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "max_position_embeddings": 262144,
            "model_type": "qwen3_vl_text",
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
            "rope_theta": 5000000,
            "vocab_size": 151936,
        },
        "tie_word_embeddings": False,
        "video_token_id": 151656,
        "vision_config": {
            "deepstack_visual_indexes": [8, 16, 24],
            "depth": 27,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "model_type": "qwen3_vl",
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": 4096,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "vision_end_token_id": 151653,
        "vision_start_token_id": 151652,
    }
    size = {"longest_edge": 16777216, "shortest_edge": 65536}
    return {"config": config, "processor_config": {"image_processor": SAVED_BY_5 | HALF | {"size": size}}}


PLANNED: dict[str, tuple[Callable[[], Files], tuple[int, int, int, int]]] = {
    "SmolVLM2-500M": (smolvlm2, (32, 960, 8192, 64)),
    "granite-docling-258M": (granite_docling, (30, 576, 8192, 64)),
    "Bunny-v1_0-3B": (bunny_phi, (32, 2560, 2048, 729)),
    "LLaVA-v1.6-mistral-7B": (llava_next, (32, 4096, 32768, 576)),
    "LLaVA-OneVision-7B": (onevision, (28, 3584, 32768, 729)),
    "InternVL3.5-2B-HF": (internvl_hf, (28, 2048, 40960, 256)),
    "Qwen3-VL-8B": (qwen3_vl_8b, (36, 4096, 262144, 1)),
}
"""Set -> its files, and layers, width, context and visual tokens of a tile of the plan."""
