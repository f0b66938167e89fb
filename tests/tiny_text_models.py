"""Tiny language models of every architecture that the decoder writers know, as plain causal LM directories."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_models import randomise

COMMON = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 522,
    "pad_token_id": 2,
    "vocab_size": 523,
    "tie_word_embeddings": False,
}
FACTORS = [1.0 + 0.1 * i for i in range(8)]


@dataclass(frozen=True)
class Case:
    """One tiny model."""

    model_type: str
    fields: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-4
    mrope: bool = False
    oracle: bool = True
    """Whether llama.cpp's converter reads it."""


CASES = {
    "llama-yarn": Case(
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
            }
        },
    ),
    "llama-linear": Case("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "mistral": Case("mistral", {"sliding_window": None}),
    "qwen2": Case("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2-tied": Case("qwen2", {"tie_word_embeddings": True}),
    "qwen3": Case("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    # ggml looks GELU up in a half-precision table, so these agree less.
    "phi2": Case(
        "phi",
        {
            "intermediate_size": 256,  # what llama.cpp's converter takes it for: four times the width
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        },
        tolerance=0.1,
    ),
    "phi3": Case("phi3", {"original_max_position_embeddings": 512}),
    "phi3-long": Case(
        "phi3",
        {
            "original_max_position_embeddings": 256,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": FACTORS,
                "long_factor": [2 * factor for factor in FACTORS],
                "original_max_position_embeddings": 256,
            },
        },
    ),
    "gemma": Case(
        "gemma",
        {"head_dim": 32, "num_key_value_heads": 1, "tie_word_embeddings": True},
        tolerance=0.1,
        oracle=False,  # it reads a SentencePiece vocabulary only
    ),
    "gemma3": Case(
        "gemma3_text",
        {
            "num_hidden_layers": 7,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 16,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
        tolerance=0.1,
    ),
    "gemma3-other-layers": Case(
        "gemma3_text",
        {
            "num_hidden_layers": 3,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 16,
            "tie_word_embeddings": True,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
        tolerance=0.1,
        oracle=False,  # it takes every sixth layer for a global one
    ),
    "qwen2-vl": Case(
        "qwen2_vl_text",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
        tolerance=5e-4,
        mrope=True,
        oracle=False,  # it reads the whole checkpoint only
    ),
}


def make(case: Case, directory: Path, tokenizer: Path) -> Any:
    """Write a checkpoint directory with a tiny random model and return the model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(case.model_type, **{**COMMON, **case.fields})
    if case.mrope:
        model = _text_of_qwen2_vl(config)
    else:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        randomise(model, 0, tied=config.tie_word_embeddings)
        model.save_pretrained(directory)
    if case.mrope:
        _save_text(model, directory, config)
    shutil.copyfile(tokenizer / "tokenizer.json", directory / "tokenizer.json")
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "GPT2Tokenizer"  # the converter's sign for byte-level BPE with phi3
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


def _text_of_qwen2_vl(config: Any) -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    vision = {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": config.hidden_size, "patch_size": 8}
    whole = Qwen2VLConfig(text_config=config.to_dict(), vision_config=vision)
    model = Qwen2VLForConditionalGeneration(whole).eval()
    randomise(model, 0)
    return model


def _save_text(model: Any, directory: Path, config: Any) -> None:
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    weights = {name.replace("model.language_model.", "model."): value for name, value in model.state_dict().items()}
    text = {name: value.contiguous() for name, value in weights.items() if not name.startswith("model.visual.")}
    save_file(text, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
