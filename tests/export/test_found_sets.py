"""More configuration files that public repositories carry, beside those of test_published_sets.py.

Where each was found stands in docs/families.md. Fields and values are theirs, the files are of our own writing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from family_parity import Pair
from image_settings import picture
from tiny_anyres import make_tiny_llava_onevision
from tiny_internvl import make_tiny_internvl
from tiny_models import make_tiny_smolvlm
from tiny_qwen3_vl import make_tiny_qwen3_vl

from edge_mllm.errors import EdgeMLLMError
from edge_mllm_export.checkpoint.checkpoint import write_json
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.source.adapter.config import read_adapter_config
from edge_mllm_export.source.facts import facts_of_source
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.write.sections import check_sections

Files = dict[str, dict[str, Any]]
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


def _smolvlm2() -> Files:
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


def _granite_docling() -> Files:
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


def _bunny_phi(**fields: Any) -> Files:
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


def _llava_next() -> Files:
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


def _onevision() -> Files:
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


def _internvl_hf() -> Files:
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


NULLS = dict.fromkeys(
    ("crop_size", "device", "disable_grouping", "do_center_crop", "do_pad", "image_seq_length", "input_data_format")
    + ("max_pixels", "min_pixels", "pad_size", "return_tensors")
)
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
} | NULLS
"""The image processor inside processor_config.json, as transformers 5 saves Qwen3-VL's."""


def _qwen3_vl_8b() -> Files:
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
    "SmolVLM2-500M": (_smolvlm2, (32, 960, 8192, 64)),
    "granite-docling-258M": (_granite_docling, (30, 576, 8192, 64)),
    "Bunny-v1_0-3B": (_bunny_phi, (32, 2560, 2048, 729)),
    "LLaVA-v1.6-mistral-7B": (_llava_next, (32, 4096, 32768, 576)),
    "LLaVA-OneVision-7B": (_onevision, (28, 3584, 32768, 729)),
    "InternVL3.5-2B-HF": (_internvl_hf, (28, 2048, 40960, 256)),
    "Qwen3-VL-8B": (_qwen3_vl_8b, (36, 4096, 262144, 1)),
}
"""Set -> its files, and layers, width, context and visual tokens of a tile of the plan."""


def write_set(directory: Path, files: Files) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, document in files.items():
        write_json(directory / f"{name}.json", document)
    return directory


@pytest.mark.parametrize("name", PLANNED)
def test_a_set_is_planned_at_its_true_size(name: str, tmp_path: Path) -> None:
    files, (layers, width, context, tokens) = PLANNED[name]
    facts = facts_of_source(str(write_set(tmp_path, files())))
    assert facts.shape is not None
    assert (facts.shape.decoder.n_layer, facts.shape.decoder.n_embd) == (layers, width)
    assert (facts.context_length, facts.vision.tokens_per_tile) == (context, tokens)


def _unknown(name: str, model_type: str, **fields: Any) -> Files:
    return {"config": {"architectures": [name], "model_type": model_type, **fields}}


def _tinyllava_gemma3() -> Files:
    text = {"architectures": ["Gemma3ForCausalLM"], "hidden_size": 1152, "model_type": "gemma3_text"}
    config = {
        "architectures": ["TinyLlavaForConditionalGeneration"],
        "connector_type": "mlp2x_gelu",
        "hidden_size": 1152,
        "image_aspect_ratio": "square",
        "image_token_index": -200,
        "llm_model_name_or_path": "LLM-Research/gemma-3-1b-pt",
        "model_type": "tinyllava",
        "text_config": text | {"num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1},
        "vision_config": SO400M | {"model_name_or_path": "google/siglip2-so400m-patch14-384"},
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "patch",
        "vocab_size": 262144,
    }
    return {"config": config}


REFUSED: dict[str, tuple[Callable[[], Files], str]] = {
    "TinyLLaVA with a Gemma 3": (_tinyllava_gemma3, r"config.json', text_config.model_type: is 'gemma3_text'"),
    "Bunny with two towers": (
        lambda: _bunny_phi(mm_vision_tower="mixedencoder", mm_hidden_size=1024),
        r"config.json', mm_vision_tower: is 'mixedencoder'",
    ),
    "granite-docling without its image processor": (
        lambda: {"config": _granite_docling()["config"]},
        r"preprocessor_config.json': is missing",
    ),
    "AndesVL": (
        lambda: _unknown("AndesVLForConditionalGeneration", "andesvl-aimv2-qwen3", vision_config={"model_type": "aimv2"}),
        r"'AndesVLForConditionalGeneration' is not supported: the nearest is .* vision_config.model_type \"aimv2\"",
    ),
    "MinerU2": (
        lambda: _unknown("Mineru2QwenForCausalLM", "mineru2_qwen", mm_vision_tower="google/siglip-so400m-patch14-384"),
        r"'Mineru2QwenForCausalLM' is not supported: the nearest is",
    ),
    "VideoLLaMA3": (
        lambda: _unknown("Videollama3Qwen2ForCausalLM", "videollama3_qwen2", image_token_index=151665),
        r"'Videollama3Qwen2ForCausalLM' is not supported",
    ),
    "LFM2.5-VL": (
        lambda: _unknown("Lfm2VlForConditionalGeneration", "lfm2_vl", image_token_id=396, vision_config={}),
        r"'Lfm2VlForConditionalGeneration' is not supported",
    ),
    "MiniCPM-V 4.6 in AWQ": (
        lambda: _unknown(
            "MiniCPMV4_6ForConditionalGeneration",
            "minicpmv4_6",
            quantization_config={"bits": 4, "group_size": 128, "quant_method": "awq"},
        ),
        r"already quantised \(AWQ, 4 bits\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_refused_in_one_sentence_by_both(name: str, tmp_path: Path) -> None:
    files, says = REFUSED[name]
    source = str(write_set(tmp_path / "set", files()))
    for open_it in (facts_of_source, lambda name: resolve_source(name, tmp_path)):
        with pytest.raises(EdgeMLLMError, match=says) as caught:
            open_it(source)
        assert "\n" not in str(caught.value)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:2cf7f8287f7e928214960b6691b0ea2d6eac6964\nsize 1484\n"


@pytest.mark.parametrize("file", ["config.json", "adapter_config.json", "preprocessor_config.json"])
def test_configuration_files_that_are_pointers_are_named(file: str, tmp_path: Path) -> None:
    """Two adapters were found whose every JSON file is one."""
    files = _granite_docling() if file == "preprocessor_config.json" else {}
    (write_set(tmp_path / "set", files) / file).write_text(POINTER)
    for open_it in (facts_of_source, lambda name: resolve_source(name, tmp_path)):
        with pytest.raises(CheckpointError, match=f"{file}.*git lfs pull"):
            open_it(str(tmp_path / "set"))


def test_adapter_files_of_peft_and_unsloth_are_read(tmp_path: Path) -> None:
    """PEFT 0.18 writes out every field; Unsloth adds one inside auto_mapping."""
    written = dict.fromkeys(
        ("alora_invocation_tokens", "arrow_config", "corda_config", "eva_config", "exclude_modules", "layers_pattern")
        + ("megatron_config", "modules_to_save", "revision", "target_parameters", "trainable_token_indices")
    )
    written |= dict.fromkeys(("ensure_weight_tying", "lora_bias", "use_dora", "use_qalora", "use_rslora"), False)
    written |= {"alpha_pattern": {}, "loftq_config": {}, "rank_pattern": {}, "megatron_core": "megatron.core"}
    kind = {"peft_type": "LORA", "r": 16, "lora_alpha": 16, "qalora_group_size": 16, "init_lora_weights": True}
    mapping = {"base_model_class": "Qwen3VLForConditionalGeneration", "unsloth_fixed": True}
    base = {"base_model_name_or_path": "Qwen/Qwen3-VL-8B-Instruct", "auto_mapping": mapping}
    write_set(tmp_path, {"adapter_config": written | kind | base})
    found = read_adapter_config("adapter", tmp_path)
    assert (found.base, found.revision, found.scaling("model.q_proj", 16)) == ("Qwen/Qwen3-VL-8B-Instruct", None, 1.0)


def _edit(directory: Path, file: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = directory / f"{file}.json"
    write_json(path, change(json.loads(path.read_text(encoding="utf-8"))))


def _small_smolvlm2(home: Path) -> Path:
    """Fields of older code in the language model, fields of the processor in the tower."""
    source = make_tiny_smolvlm(home / "smolvlm2", smolvlm2=True)
    tower = {"max_image_size": {"longest_edge": 32}, "size": {"longest_edge": 128}, "use_base_siglip": False}
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")

    def older(config: dict[str, Any]) -> dict[str, Any]:
        text = config["text_config"] | VLLAMA | {"bos_token_id": None}
        text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
        small = {name: config["vision_config"][name] for name in kept} | tower | {"model_type": "smolvlm_vision"}
        return config | {"text_config": text, "vision_config": small, "pad_token_id": 128002, "torch_dtype": "float32"}

    _edit(source, "config", older)
    videos = {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}}}
    _edit(source, "preprocessor_config", lambda found: found | videos | {"image_processor_type": "SmolVLMImageProcessor"})
    _edit(source, "processor_config", lambda found: found | {"processor_class": "SmolVLMProcessor"})
    return source


GRANITE_TEMPLATE = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '<row_1_col_1>' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- elif part['type'] == 'image' -%}{{- '<image>' -}}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{- '<end_of_utterance>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant' -}}"
    "{%- if controls -%}{{- ' ' + controls | tojson() -}}{%- endif -%}{{- '<row_1_col_1>' -}}{%- endif -%}\n"
)
"""Ends roles with a mark, and asks for ``controls`` that nobody sets."""


def _small_granite(home: Path) -> Path:
    source = make_tiny_smolvlm(home / "granite", tied=True)
    (source / "chat_template.json").unlink()
    (source / "chat_template.jinja").write_text(GRANITE_TEMPLATE, encoding="utf-8")
    tower = {"max_image_size": {"longest_edge": 32}, "size": {"longest_edge": 32}}
    _edit(source, "config", lambda found: found | {"vision_config": found["vision_config"] | tower})
    return source


def _small_internvl(home: Path) -> Path:
    source = make_tiny_internvl(home / "internvl", decoder="qwen3")
    _edit(source, "config", lambda found: found | {"vision_config": found["vision_config"] | INTERN_VIT})
    kind = {"image_processor_type": "GotOcr2ImageProcessorFast", "do_pad": None}
    _edit(source, "preprocessor_config", lambda found: found | kind)
    return source


def _small_onevision(home: Path) -> Path:
    """The tokenizer's template is null, the processor's is in chat_template.json."""
    source = make_tiny_llava_onevision(home / "onevision")
    template = (source / "chat_template.jinja").read_text(encoding="utf-8")
    (source / "chat_template.jinja").unlink()
    write_json(source / "chat_template.json", {"chat_template": template})
    _edit(source, "tokenizer_config", lambda found: found | {"chat_template": None, "model_max_length": 16384})
    return source


def _small_qwen3(home: Path) -> Path:
    """Saved by transformers 5: one file for all processors, tokens as a list, the tokenizer's backend named."""
    source = make_tiny_qwen3_vl(home / "qwen3")
    given = json.loads((source / "preprocessor_config.json").read_text(encoding="utf-8"))
    (source / "preprocessor_config.json").unlink()
    videos = SAVED_BY_5 | {"fps": 2, "num_frames": None, "video_processor_type": "Qwen3VLVideoProcessor"}
    nested = {"image_processor": given | SAVED_BY_5, "video_processor": given | videos}
    write_json(source / "processor_config.json", nested | {"processor_class": "Qwen3VLProcessor"})
    marks = [f"<|{name}|>" for name in ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")]
    saved = {"additional_special_tokens": None, "backend": "tokenizers", "extra_special_tokens": marks}
    _edit(source, "tokenizer_config", lambda found: found | saved | {"is_local": False, "errors": "replace"})
    return source


SMALL: dict[str, Callable[[Path], Path]] = {
    "SmolVLM2-500M": _small_smolvlm2,
    "granite-docling-258M": _small_granite,
    "InternVL3.5-2B-HF": _small_internvl,
    "LLaVA-OneVision-7B": _small_onevision,
    "Qwen3-VL saved by transformers 5": _small_qwen3,
}


@pytest.mark.parametrize("name", SMALL)
def test_a_set_is_opened_around_random_weights(name: str, tmp_path: Path) -> None:
    source = SMALL[name](tmp_path)
    (tmp_path / "scratch").mkdir()
    checkpoint = resolve_source(str(source), tmp_path / "scratch")
    check_sections(checkpoint, find_family(checkpoint))
    assert facts_of_source(str(source)).context_length == find_family(checkpoint).decoder(checkpoint).context_length
    pair = Pair.of(checkpoint)
    for count in range(3):
        found = pair.compare([picture(60 + 50 * number, 40) for number in range(count)], "What  1. is it?")
        assert found.pixels_equal and found.ids_equal
    shutil.rmtree(source)
