"""The directory that onnxruntime-genai's model builder is pointed at.

The builder knows a language model with M-RoPE only inside the image-text classes that it was written for, and reads
rotary parameters where older configurations had them. Where the layers are the same, another configuration around the
same weights is all it needs. Scaled positions are left to :mod:`.rotary`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge_mllm_export.write.onnx.rotary import plain_rotary

_NO_TOWER = {
    "depth": 0,
    "fullatt_block_indexes": [],
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_heads": 1,
    "out_hidden_size": 8,
}
"""The builder makes the whole model and reads the decoder alone, so its tower has no layers."""


def builder_source(text_dir: Path, scratch: Path) -> Path:
    """A directory that the builder takes, with the weights of ``text_dir``: that directory itself where possible.

    Args:
        text_dir: A plain causal LM directory.
        scratch: Where another one may be made.
    """
    config = json.loads((text_dir / "config.json").read_text(encoding="utf-8"))
    plain, wrap = plain_rotary(config), _WRAPPERS.get(config["model_type"])
    if wrap is None and plain == config:
        return text_dir
    directory = scratch / "source"
    directory.mkdir()
    for path in text_dir.iterdir():
        if path.name != "config.json":
            (directory / path.name).symlink_to(path.resolve())
    (directory / "config.json").write_text(json.dumps(plain if wrap is None else wrap(plain)), encoding="utf-8")
    return directory


def _mrope_wrapper(config: dict[str, Any]) -> dict[str, Any]:
    """Qwen2.5-VL's class: its decoder has the layers, tensor names and rotary sections of Qwen2-VL's."""
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "text_config": config | {"model_type": "qwen2_5_vl_text"},
        "vision_config": _NO_TOWER,
        "tie_word_embeddings": config["tie_word_embeddings"],
    }


def _interleaved_wrapper(config: dict[str, Any]) -> dict[str, Any]:
    """Qwen3-VL's class; its graph takes no rows for further layers, which :mod:`.deepstack` adds."""
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": config,
        "vision_config": _NO_TOWER | {"deepstack_visual_indexes": [], "num_position_embeddings": 1},
        "tie_word_embeddings": config["tie_word_embeddings"],
    }


def _hybrid_wrapper(config: dict[str, Any]) -> dict[str, Any]:
    """Qwen3.5's class; the builder would take a plain one for a model that it does not know."""
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        "text_config": config,
        "vision_config": _NO_TOWER | {"num_position_embeddings": 1},
        "tie_word_embeddings": config["tie_word_embeddings"],
    }


def _two_bases(config: dict[str, Any]) -> dict[str, Any]:
    """Rotary parameters by kind of layer, and the full layers' once more where the builder looks for them.

    The builder moves all entries of ``rope_parameters`` to the configuration itself; transformers reads those of its
    kind of layer alone.
    """
    rotary = config["rope_parameters"]
    local = rotary["sliding_attention"]["rope_theta"]
    return config | {"rope_parameters": rotary | rotary["full_attention"] | {"rope_local_base_freq": local}}


_WRAPPERS = {
    "qwen2_vl_text": _mrope_wrapper,
    "qwen2_5_vl_text": _mrope_wrapper,
    "qwen3_vl_text": _interleaved_wrapper,
    "qwen3_5_text": _hybrid_wrapper,
    "gemma3_text": _two_bases,
}
"""``model_type`` of a plain language model -> the configuration around it."""
