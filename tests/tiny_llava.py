"""Tiny checkpoints in LLaVA's layout: CLIP and a Llama, or SigLIP and a Qwen2, as in Bunny and LLaVA-interleave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tiny_models import _disable_progress_bars, _write_json, randomise

VOCABULARY = 541
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<image>\n' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tiny_llava(
    directory: Path,
    *,
    seed: int = 0,
    tile: int = 32,
    patch: int = 8,
    tower: Literal["clip", "siglip"] = "clip",
    processor: dict[str, Any] | None = None,
    layers: int | list[int] | None = None,
    strategy: str | None = None,
    vision: dict[str, Any] | None = None,
    phi: bool = False,
) -> Path:
    """Write a complete tiny LlavaForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        tile: Tile edge in pixels.
        patch: Patch edge in pixels.
        tower: "clip" with a Llama, or "siglip" with a Qwen2.
        processor: Fields of preprocessor_config.json that differ.
        layers: ``vision_feature_layer``; as published when absent.
        strategy: ``vision_feature_select_strategy``; as published when absent.
        vision: Fields of the tower's configuration that differ.
        phi: Take a Phi-2 for the language model.
    """
    from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

    from edge_mllm_export.families.llava import llava_phi

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _write_tokenizer(directory)
    ids = {"bos_token_id": tokenizer.token_to_id("<|endoftext|>"), "eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    clip = tower == "clip"
    text = {"model_type": "llama" if clip else "qwen2", **_text_config()} if not phi else _phi_config()
    config = LlavaConfig(
        vision_config={"model_type": f"{tower}_vision_model", **_vision_config(tile, patch), **(vision or {})},
        text_config={**text, **ids},
        image_token_index=tokenizer.token_to_id("<image>"),
        vision_feature_layer=layers if layers is not None else (-2 if clip else -1),
        vision_feature_select_strategy=strategy or ("default" if clip else "full"),
    )
    model = (llava_phi.model_class() if phi else LlavaForConditionalGeneration)(config).eval()
    randomise(model, seed)
    model.generation_config = GenerationConfig(**ids)
    _disable_progress_bars()
    model.save_pretrained(directory, save_original_format=not phi)  # older names are those of transformers' class
    settings = _clip_settings(tile) if clip else _siglip_settings(tile)
    _write_json(directory / "preprocessor_config.json", settings | (processor or {}))
    _write_json(directory / "processor_config.json", {"processor_class": "LlavaProcessor", "image_token": "<image>"})
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return directory


def _write_tokenizer(directory: Path) -> Any:
    from edge_mllm_export.shapes import load_shape, write_tokenizer

    added = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
    plan = replace(load_shape("qwen2-vl-2b").tokenizer, base_size=VOCABULARY - len(added), added=added)
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "processor_class": "LlavaProcessor",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    return write_tokenizer(directory, plan, settings)


def _vision_config(tile: int, patch: int) -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": tile,
        "patch_size": patch,
    }


def _text_config() -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
    }


def make_tiny_llava_phi(directory: Path, **options: Any) -> Path:
    """The same with a Phi-2."""
    return make_tiny_llava(directory, tower="siglip", layers=-2, phi=True, **options)


def _phi_config() -> dict[str, Any]:
    """Phi-2's structure: heads of its own width, of which four tenths turn; all layers have biases."""
    return {
        "model_type": "phi",
        "hidden_size": 320,
        "intermediate_size": 224,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.4,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu_new",
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
    }


def _clip_settings(tile: int) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": tile, "width": tile},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": tile},
    }


def _siglip_settings(tile: int) -> dict[str, Any]:
    return {
        "image_processor_type": "SiglipImageProcessor",
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": tile, "width": tile},
    }
