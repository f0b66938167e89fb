"""Configuration files with the fields and values of published checkpoints: planned at true size, opened in small.

What cannot be opened is refused by both in one sentence. The files are of our own writing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from config_sets import Files, check_refused, planned, write_set
from family_makers import make_tiny
from family_parity import Pair
from image_settings import picture
from tiny_gemma3 import make_tiny_gemma3
from tiny_internlm2 import make_tiny_internlm2_chat
from tiny_internvl import make_tiny_internvl, make_tiny_internvl_chat
from tiny_llava import make_tiny_llava
from tiny_qwen2_vl import make_tiny_qwen2_5_vl
from tiny_qwen3_vl import make_tiny_qwen3_vl

from edge_mllm_export.checkpoint.checkpoint import Checkpoint
from edge_mllm_export.families.inventory import check_tensors
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.json_files import write_json
from edge_mllm_export.source.facts import facts_of_source
from edge_mllm_export.source.source import resolve_source
from edge_mllm_export.write.gguf.backbones import check_backbone
from edge_mllm_export.write.gguf.text_config import TextConfig
from edge_mllm_export.write.sections import check_sections

CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
DYNAMIC = {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}
MROPE = {"mrope_section": [16, 24, 24], "type": "mrope"}


def _internvl(template: str, tower: str, text: dict[str, Any]) -> Files:
    config = {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 448,
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "system_message": None,
        "template": template,
        "use_thumbnail": True,
        "llm_config": {"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "use_bfloat16": True, **text},
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "hidden_act": "gelu",
            "hidden_size": 1024,
            "image_size": 448,
            "intermediate_size": 4096,
            "layer_norm_eps": 1e-6,
            "model_type": tower,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "qk_normalization": False,
            "qkv_bias": True,
        },
    }
    picture_settings = {"crop_size": 448, "do_center_crop": True, "feature_extractor_type": "CLIPFeatureExtractor"}
    return {"config": config, "preprocessor_config": picture_settings | IMAGENET | {"resample": 3, "size": 448}}


def _sizes(*values: int) -> dict[str, int]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    return dict(zip((*names, "vocab_size", "max_position_embeddings"), values, strict=True))


QWEN_1_5B = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_scaling": DYNAMIC} | _sizes(
    1536, 8960, 28, 12, 2, 151674, 32768
)
INTERNLM2 = {
    "architectures": ["InternLM2ForCausalLM"],
    "model_type": "internlm2",
    "bias": False,
    "rope_scaling": {"factor": 2.0, "type": "dynamic"},
} | _sizes(2048, 8192, 24, 16, 8, 92553, 512)
PHI3 = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "rope_scaling": {"type": "su"}} | _sizes(
    3072, 8192, 32, 32, 32, 32020, 512
)


def _qwen2_5_vl(longest: int) -> Files:
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "image_token_id": 151655,
        "rms_norm_eps": 1e-6,
        "rope_scaling": MROPE,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        **_sizes(2048, 11008, 36, 16, 2, 151936, longest),
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "in_chans": 3,
            "out_hidden_size": 2048,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "temporal_patch_size": 2,
        },
    }
    bounds = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    kind = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    return {"config": config, "preprocessor_config": bounds | CLIP | kind}


def _qwen3_vl(layers: int, width: int, wide: int, heads: int) -> Files:
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "image_token_id": 151655,
        "model_type": "qwen3_vl",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 151643,
            "dtype": "bfloat16",
            "eos_token_id": 151645,
            "head_dim": 128,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "model_type": "qwen3_vl_text",
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
            "rope_theta": 5000000,
            "tie_word_embeddings": True,
            "use_cache": True,
            **_sizes(width, wide, layers, heads, 8, 151936, 262144),
        },
        "tie_word_embeddings": True,
        "transformers_version": "4.57.0.dev0",
        "video_token_id": 151656,
        "vision_config": {
            "deepstack_visual_indexes": [5, 11, 17],
            "depth": 24,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1024,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 4096,
            "model_type": "qwen3_vl",
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": width,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "vision_end_token_id": 151653,
        "vision_start_token_id": 151652,
    }
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    size = {"size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16, "temporal_patch_size": 2}
    kind = {"image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor"}
    return {"config": config, "preprocessor_config": size | half | kind | {"merge_size": 2}}


def _gemma3() -> Files:
    text = {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34}
    tower = {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model"}
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "image_token_index": 262144,
        "mm_tokens_per_image": 256,
        "text_config": text | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},
        "vision_config": tower | {"num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14},
    }
    nulls = ("do_convert_rgb", "do_pan_and_scan", "pan_and_scan_max_num_crops", "pan_and_scan_min_crop_size")
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_seq_length": 256, "resample": 2}
    size = {"size": {"height": 896, "width": 896}, "image_processor_type": "Gemma3ImageProcessor"}
    return {
        "config": config,
        "preprocessor_config": dict.fromkeys(nulls) | half | size,
        "processor_config": {"image_seq_length": 256, "processor_class": "Gemma3Processor"},
    }


LLAVA_PICTURES = {
    "crop_size": {"height": 336, "width": 336},
    "do_center_crop": True,
    "image_processor_type": "CLIPImageProcessor",
    "processor_class": "LlavaProcessor",
    "resample": 3,
    "size": {"shortest_edge": 336},
    **CLIP,
}


def _llava() -> Files:
    text = {"max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-5, "vocab_size": 32064}
    tower = {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model"}
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": 32000,
        "pad_token_id": 32001,
        "projector_hidden_act": "gelu",
        "text_config": text | {"_name_or_path": "lmsys/vicuna-7b-v1.5"},
        "vision_config": tower | {"num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14},
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    settings = {"image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": 14}
    return {"config": config, "preprocessor_config": LLAVA_PICTURES, "processor_config": settings}


PLANNED: dict[str, tuple[Callable[[], Files], tuple[int, int, int, int]]] = {
    "InternVL3-2B": (lambda: _internvl("internvl2_5", "intern_vit_6b", QWEN_1_5B), (28, 1536, 32768, 256)),
    "InternVL2-2B": (lambda: _internvl("internlm2-chat", "intern_vit_6b", INTERNLM2), (24, 2048, 512, 256)),
    "Qwen2.5-VL-3B": (lambda: _qwen2_5_vl(128000), (36, 2048, 128000, 1)),
    "Qwen2.5-VL-3B for 8192 tokens": (lambda: _qwen2_5_vl(8192), (36, 2048, 8192, 1)),
    "Qwen3-VL-2B": (lambda: _qwen3_vl(28, 2048, 6144, 16), (28, 2048, 262144, 1)),
    "Qwen3-VL-4B": (lambda: _qwen3_vl(36, 2560, 9728, 32), (36, 2560, 262144, 1)),
    "Gemma 3 4B": (_gemma3, (34, 2560, 131072, 256)),
    "LLaVA 1.5 7B": (_llava, (32, 4096, 4096, 576)),
}
"""Set -> its files, and layers, width, context and visual tokens of a tile of the plan."""


@pytest.mark.parametrize("name", PLANNED)
def test_a_published_set_is_planned_at_its_true_size(name: str, tmp_path: Path) -> None:
    files, expected = PLANNED[name]
    facts = planned(tmp_path, files(), expected)
    assert all(part.weight_bytes > 0 for parts in facts.decoders.values() for part in parts)


def _awq() -> Files:
    found = _qwen2_5_vl(32768)
    method = {"bits": 4, "group_size": 128, "quant_method": "awq", "version": "gemm", "zero_point": True}
    found["config"] |= {"quantization_config": method, "_name_or_path": "Qwen/Qwen2-VL-2B-Instruct-319"}
    return found


REFUSED: dict[str, tuple[Callable[[], Files], str]] = {
    "Qwen2-VL-2B in AWQ": (_awq, r"already quantised \(AWQ, 4 bits\).*export the unquantised model instead"),
    "InternVL2-4B": (
        lambda: _internvl("phi3-chat", "intern_vit_6b", PHI3),
        r"'config.json', template: is 'phi3-chat', known: internvl2_5, internlm2-chat, Hermes-2",
    ),
    "InternVL3-2B with another tower": (
        lambda: _internvl("internvl2_5", "uniflow", QWEN_1_5B),
        r"config.json', vision_config.model_type: is 'uniflow', known: intern_vit_6b",
    ),
    "MiniCPM-V 2.6's processor": (
        lambda: {"preprocessor_config": {"image_processor_type": "MiniCPMVImageProcessor", "max_slice_nums": 9}},
        r"the directory has no config.json, so it is no checkpoint",
    ),
    "an adapter of LLaVA 1.5": (
        lambda: {
            "adapter_config": {
                "base_model_name_or_path": "llava-1.5-7b-hf",
                "lora_alpha": 32,
                "peft_type": "LORA",
                "r": 16,
                "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
                "task_type": "CAUSAL_LM",
            }
        },
        r"its base 'llava-1.5-7b-hf' is not there",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_refused_in_one_sentence_by_both(name: str, tmp_path: Path) -> None:
    files, says = REFUSED[name]
    check_refused(write_set(tmp_path / "set", files()), says)


def _changed(directory: Path, file: str, change: dict[str, Any], *, drop: tuple[str, ...] = ()) -> Path:
    """A directory with fields changed in one of its files."""
    path = directory / f"{file}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {key: value for key, value in document.items() if key not in drop} | change)
    return directory


def _small_internvl(home: Path) -> Path:
    source = make_tiny_internvl_chat(home / "chat", make_tiny_internvl(home / "native"))
    text = json.loads((source / "config.json").read_text(encoding="utf-8"))["llm_config"]
    return _changed(source, "config", {"llm_config": text | {"rope_scaling": DYNAMIC}, "system_message": None})


def _small_internvl2(home: Path) -> Path:
    source = make_tiny_internlm2_chat(home / "chat")
    text = json.loads((source / "config.json").read_text(encoding="utf-8"))["llm_config"]
    change = {"llm_config": text | {"rope_scaling": INTERNLM2["rope_scaling"]}, "template": "internlm2-chat"}
    return _changed(source, "config", change)


def _small_qwen(home: Path) -> Path:
    """The language model's fields at the top level, as the published files have them."""
    source = make_tiny_qwen2_5_vl(home / "qwen")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    text = {key: value for key, value in config.pop("text_config").items() if key not in ("model_type", "layer_types")}
    rotary = text.pop("rope_parameters")
    scaling = {"mrope_section": rotary["mrope_section"], "type": "mrope"}
    write_json(source / "config.json", text | config | {"rope_scaling": scaling, "rope_theta": rotary["rope_theta"]})
    return source


def _small_qwen3(home: Path) -> Path:
    """Rotary parameters, the tower's kind and the backend of the image processor as the published files have them."""
    source = make_tiny_qwen3_vl(home / "qwen3")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    rotary = config["text_config"].pop("rope_parameters")
    theta = rotary.pop("rope_theta")
    config["text_config"] |= {"rope_scaling": rotary, "rope_theta": theta}
    config["vision_config"] = config["vision_config"] | {"model_type": "qwen3_vl"}
    write_json(source / "config.json", config)
    return source


def _small_gemma(home: Path) -> Path:
    source = make_tiny_gemma3(home / "gemma")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    text = {key: value for key, value in config["text_config"].items() if key != "rope_parameters"}
    _changed(source, "config", {"text_config": text | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}})
    return _changed(source, "preprocessor_config", {"do_convert_rgb": None, "pan_and_scan_max_num_crops": None})


def _small_llava(home: Path) -> Path:
    source = make_tiny_llava(home / "llava")
    settings = {"num_additional_image_tokens": 1, "patch_size": 8, "vision_feature_select_strategy": "default"}
    return _changed(source, "processor_config", settings)


def _small_adapter(home: Path) -> Path:
    """Beside its base."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(make_tiny("idefics3", home))
    settings = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj", "k_proj", "v_proj"])
    get_peft_model(model, settings).save_pretrained(home / "adapter")
    return _changed(home / "adapter", "adapter_config", {"base_model_name_or_path": "../idefics3"})


SMALL: dict[str, Callable[[Path], Path]] = {
    "InternVL3-2B": _small_internvl,
    "InternVL2-2B": _small_internvl2,
    "Qwen2.5-VL-3B": _small_qwen,
    "Qwen3-VL-2B": _small_qwen3,
    "Gemma 3 4B": _small_gemma,
    "LLaVA 1.5 7B": _small_llava,
    "an adapter": _small_adapter,
}


@pytest.mark.parametrize("name", SMALL)
def test_a_published_set_is_opened_around_random_weights(name: str, tmp_path: Path) -> None:
    source = SMALL[name](tmp_path)
    (tmp_path / "scratch").mkdir()
    checkpoint = resolve_source(str(source), tmp_path / "scratch")
    check_all(checkpoint)
    assert facts_of_source(str(source)).context_length == find_family(checkpoint).decoder(checkpoint).context_length
    found = Pair.of(checkpoint).compare([picture(60, 40)], "What is the total?")
    assert found.pixels_equal and found.ids_equal


def check_all(checkpoint: Checkpoint) -> None:
    """As an export does it before it writes anything, with llama.cpp's decoder."""
    family = find_family(checkpoint)
    check_sections(checkpoint, family)
    check_tensors(checkpoint, family)
    check_backbone(TextConfig(family.text_config(checkpoint)))


def test_gemmas_flat_scaling_is_of_the_layers_that_see_all(tmp_path: Path) -> None:
    checkpoint = resolve_source(str(_small_gemma(tmp_path)), tmp_path)
    rotary = find_family(checkpoint).text_config(checkpoint)["rope_parameters"]
    assert (rotary["full_attention"]["rope_type"], rotary["full_attention"]["factor"]) == ("linear", 8.0)
    assert rotary["sliding_attention"]["rope_type"] == "default"
    shutil.rmtree(tmp_path)
