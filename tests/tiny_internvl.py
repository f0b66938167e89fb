"""A tiny InternVL of random weights: InternViT with class token, pixel shuffle, and a Qwen2 or Qwen3."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_models import _disable_progress_bars, _write_json, randomise

VOCABULARY = 547
"""Rows of the embedding table; the tokenizer's <video> is one behind it, as in the published native checkpoints."""


def make_tiny_internvl(
    directory: Path,
    *,
    seed: int = 0,
    tile: int = 32,
    patch: int = 8,
    max_patches: int = 12,
    decoder: str = "qwen2",
    depth: int = 2,
    **text: Any,
) -> Path:
    """Write a complete tiny InternVLForConditionalGeneration checkpoint directory and return it.

    Args:
        directory: Where to write.
        seed: Of the random weights.
        tile: Tile edge in pixels; a multiple of twice the patch.
        patch: Patch edge in pixels.
        max_patches: Most tiles, the thumbnail not counted.
        decoder: "qwen2", "qwen3" or "llama".
        depth: Layers of the tower.
        **text: Overrides of text_config.
    """
    from transformers import GenerationConfig, InternVLConfig, InternVLForConditionalGeneration

    from edge_mllm_export.shapes import load_shape, write_tokenizer

    directory.mkdir(parents=True, exist_ok=True)
    shape = load_shape("internvl3-1b")
    in_table = len(shape.tokenizer.added) - 1  # the video token's id is one behind the embedding table
    plan = replace(shape.tokenizer, base_size=VOCABULARY - in_table)
    tokenizer = write_tokenizer(directory, plan, shape.tokenizer_config | {"model_max_length": 2048})
    ids = {
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
    }
    config = InternVLConfig(
        text_config=_text_config(decoder) | ids | text,
        vision_config=_vision_config(tile, patch, depth),
        image_token_id=tokenizer.token_to_id("<IMG_CONTEXT>"),
        image_seq_length=(tile // patch // 2) ** 2,
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config).eval()
    randomise(model, seed)
    model.generation_config = GenerationConfig(**ids)
    _disable_progress_bars()
    model.save_pretrained(directory)
    cut = {"max_patches": max_patches, "size": {"height": tile, "width": tile}}
    _write_json(directory / "preprocessor_config.json", shape.preprocessor | cut)
    settings = {"image_seq_length": (tile // patch // 2) ** 2, "processor_class": "InternVLProcessor"}
    _write_json(directory / "processor_config.json", settings)
    (directory / "chat_template.jinja").write_text(shape.chat_template, encoding="utf-8")
    return directory


def _text_config(decoder: str) -> dict[str, Any]:
    return {
        "model_type": decoder,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32 if decoder == "qwen3" else 16,
        "max_position_embeddings": 2048,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
    }


def _vision_config(tile: int, patch: int, depth: int) -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": depth,
        "num_attention_heads": 4,
        "attention_bias": True,
        "image_size": [tile, tile],
        "patch_size": [patch, patch],
        "layer_norm_eps": 1e-6,
    }


def make_tiny_internvl_chat(directory: Path, native: Path, *, template: str = "internvl2_5") -> Path:
    """The same weights in the layout of InternVL's own repository, with the tokenizer's slow files only.

    Args:
        directory: Where to write.
        native: What :func:`make_tiny_internvl` wrote.
        template: Name of the conversation template.
    """
    import torch
    from safetensors.torch import save_file

    from edge_mllm_export.checkpoint.checkpoint import open_checkpoint

    directory.mkdir(parents=True, exist_ok=True)
    opened = open_checkpoint(native)
    tensors = {name: opened.tensor(name) for name in opened.tensors}
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if ".attention.q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            stored[_chat_name(name).replace(".attn.q_proj.", ".attn.qkv.")] = torch.cat(parts)
        elif ".attention.k_proj." not in name and ".attention.v_proj." not in name:
            stored[_chat_name(name)] = tensor.clone()
    save_file(stored, directory / "model.safetensors", {"format": "pt"})
    _write_json(directory / "config.json", _chat_config(native, template))
    _write_chat_tokenizer(native, directory)
    return directory


def _chat_name(name: str) -> str:
    if name.startswith(("model.language_model.", "lm_head.")):
        return "language_model." + name.replace("model.language_model.", "model.")
    if "multi_modal_projector" in name:
        _, part, kind = name.removeprefix("model.").split(".")
        return f"mlp1.{ {'layer_norm': 0, 'linear_1': 1, 'linear_2': 3}[part] }.{kind}"
    name = name.replace("model.vision_tower.", "vision_model.")
    if ".encoder.layer." not in name:
        short = {"cls_token": "class_embedding", "position_embeddings": "position_embedding"}
        name = name.replace("patch_embeddings.projection", "patch_embedding")
        return ".".join(short.get(part, part) for part in name.split("."))
    for new, old in {
        ".encoder.layer.": ".encoder.layers.",
        ".attention.projection_layer.": ".attn.proj.",
        ".attention.": ".attn.",
        ".layernorm_before.": ".norm1.",
        ".layernorm_after.": ".norm2.",
        ".lambda_1": ".ls1",
        ".lambda_2": ".ls2",
    }.items():
        name = name.replace(new, old)
    return name


def _chat_config(native: Path, template: str) -> dict[str, Any]:
    given = json.loads((native / "config.json").read_text(encoding="utf-8"))
    vision, text = given["vision_config"], given["text_config"]
    tile, patch = vision["image_size"][0], vision["patch_size"][0]
    names = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps")
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": tile,
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "ps_version": "v2",
        "select_layer": -1,
        "template": template,
        "use_thumbnail": True,
        "llm_config": {
            **{key: value for key, value in text.items() if key not in ("layer_types", "rope_parameters")},
            "architectures": [names[text["model_type"]]],
            "rope_theta": text["rope_parameters"]["rope_theta"],
            "use_bfloat16": True,
        },
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            **{name: vision[name] for name in kept},
            "hidden_act": "gelu",
            "image_size": tile,
            "norm_type": "layer_norm",
            "num_channels": 3,
            "patch_size": patch,
            "qk_normalization": False,
            "qkv_bias": True,
        },
    }


def _write_chat_tokenizer(native: Path, directory: Path) -> None:
    document = json.loads((native / "tokenizer.json").read_text(encoding="utf-8"))
    _write_json(directory / "vocab.json", document["model"]["vocab"])
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in document["model"]["merges"]]
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    settings = json.loads((native / "tokenizer_config.json").read_text(encoding="utf-8"))
    beyond = {id_ for id_, token in settings["added_tokens_decoder"].items() if token["content"] == "<video>"}
    settings["added_tokens_decoder"] = {k: v for k, v in settings["added_tokens_decoder"].items() if k not in beyond}
    settings.pop("extra_special_tokens")
    _write_json(directory / "tokenizer_config.json", settings)
    added = {token["content"]: int(id_) for id_, token in settings["added_tokens_decoder"].items()}
    _write_json(directory / "added_tokens.json", added)
