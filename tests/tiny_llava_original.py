"""Tiny checkpoints in the layouts of Bunny and TinyLLaVA Factory: SigLIP, a projector and a Qwen2 under other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_llava import make_tiny_llava
from tiny_models import _write_json

BUNNY = (
    ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("model.language_model.", "model."),
)
TINY = (
    ("model.vision_tower.", "vision_tower._vision_tower.vision_model."),
    ("model.multi_modal_projector.linear_1.", "connector._connector.0."),
    ("model.multi_modal_projector.linear_2.", "connector._connector.2."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
"""LLaVA's beginnings of names -> the layout's."""


def make_tiny_bunny(directory: Path, *, aspect: str | None = "pad", phi: bool = False, **fields: Any) -> Path:
    """Write a checkpoint in Bunny's layout; the same weights as a LLaVA are beside it in ``native``.

    Args:
        directory: Where to write.
        aspect: ``image_aspect_ratio``.
        phi: Take a Phi-2 for the language model.
        **fields: Of config.json.
    """
    vision = {"num_attention_heads": 12, "hidden_size": 96, "num_hidden_layers": 12}
    native = make_tiny_llava(directory.with_name("native"), tower="siglip", layers=-2, vision=vision, phi=phi)
    given = json.loads((native / "config.json").read_text(encoding="utf-8"))
    config = _text(given) | {
        "architectures": ["BunnyPhiForCausalLM" if phi else "BunnyQwenForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_bunny.BunnyForCausalLM"},
        "model_type": "bunny-phi" if phi else "bunny-qwen",
        "image_aspect_ratio": aspect,
        "mm_hidden_size": 96,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "google/siglip-base-patch8-32",
        "tokenizer_model_max_length": 2048,
        "unfreeze_vision_tower": True,
        "use_mm_proj": True,
    }
    return _write(directory, native, config | fields, BUNNY)


def make_tiny_tinyllava(directory: Path, *, aspect: str = "square", **fields: Any) -> Path:
    """The same in TinyLLaVA Factory's layout, whose code drops the first patch."""
    native = make_tiny_llava(directory.with_name("native"), tower="siglip", layers=-2, strategy="default")
    given = json.loads((native / "config.json").read_text(encoding="utf-8"))
    config = {
        "architectures": ["TinyLlavaForConditionalGeneration"],
        "model_type": "tinyllava",
        "connector_type": "mlp2x_gelu",
        "image_aspect_ratio": aspect,
        "image_token_index": -200,
        "llm_model_name_or_path": "Qwen/Qwen2-0.5B",
        "text_config": _text(given) | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
        "vision_config": given["vision_config"] | {"model_name_or_path": "google/siglip-so400m-patch14-384"},
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "patch",
        "vision_model_name_or_path": "google/siglip-so400m-patch14-384",
    }
    return _write(directory, native, config | fields, TINY)


def _text(given: dict[str, Any]) -> dict[str, Any]:
    text = {key: value for key, value in given["text_config"].items() if key not in ("layer_types", "rope_parameters")}
    rope = given["text_config"]["rope_parameters"]
    turned = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    return text | turned | {"tie_word_embeddings": False}


def _write(directory: Path, native: Path, config: dict[str, Any], names: tuple[tuple[str, str], ...]) -> Path:
    from safetensors.torch import load_file, save_file

    from edge_mllm_export.checkpoint.checkpoint import open_checkpoint

    directory.mkdir(parents=True, exist_ok=True)
    opened = open_checkpoint(native)
    stored = load_file(native / "model.safetensors")
    tensors = {}
    for name, info in opened.tensors.items():
        before, after = next((pair for pair in names if name.startswith(pair[0])), ("", ""))
        tensors[after + name.removeprefix(before)] = stored[info.stored_name].clone()
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    _write_json(directory / "config.json", config)
    document = json.loads((native / "tokenizer.json").read_text(encoding="utf-8"))
    document["added_tokens"] = [entry for entry in document["added_tokens"] if entry["content"] != "<image>"]
    _write_json(directory / "tokenizer.json", document)
    settings = json.loads((native / "tokenizer_config.json").read_text(encoding="utf-8"))
    kept = {id_: token for id_, token in settings["added_tokens_decoder"].items() if token["content"] != "<image>"}
    _write_json(directory / "tokenizer_config.json", settings | {"added_tokens_decoder": kept})
    return directory
