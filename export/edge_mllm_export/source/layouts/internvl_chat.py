"""Checkpoints in the layout of InternVL's own repository, rewritten in the transformers-native layout.

The original directory (``model_type`` "internvl_chat") needs code of its own from the hub. None of it is run: its
configuration says everything, and the tensors are the same under other names, with query, key and value of the
vision tower in one matrix. Names follow transformers' convert_internvl_weights_to_hf.py (Apache-2.0), the prompt
format the conversation templates of the InternVL repository (MIT).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.checkpoint.tensor_store import TensorInfo, read_inventory, read_tensor
from edge_mllm_export.errors import CheckpointError, UnsupportedArchitectureError
from edge_mllm_export.json_files import read_json, write_json
from edge_mllm_export.source.layouts import internlm2
from edge_mllm_export.source.layouts.native import Documents, write_native
from edge_mllm_export.tokenizer.directory import file_tokenizer, read_settings, save_tokenizer
from edge_mllm_export.tokenizer.sentencepiece import convert_sentencepiece

if TYPE_CHECKING:
    import torch

MODEL_TYPE = "internvl_chat"
_LANGUAGE_MODELS = {
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "LlamaForCausalLM": "llama",
    internlm2.ARCHITECTURE: "llama",
}
_LANGUAGE = "language_model."
_PLAIN_SENTENCEPIECE = ("InternLM2Tokenizer", "InternLM2TokenizerFast")
"""Tokenizer classes that add nothing to SentencePiece but the begin token, so that none of their code is needed."""
_IMAGE, _CONTEXT = "<image>", "<IMG_CONTEXT>"

_VISION_FIELDS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels"),
    *("hidden_act", "layer_norm_eps", "norm_type"),
)
_RENAMED_FIELDS = {"qkv_bias": "attention_bias", "qk_normalization": "use_qk_norm", "initializer_factor": ""}

_NAMES = (
    (r"mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
    (r"mlp1\.1\.", "model.multi_modal_projector.linear_1."),
    (r"mlp1\.3\.", "model.multi_modal_projector.linear_2."),
    (r"language_model\.lm_head\.", "lm_head."),
    (r"language_model\.model\.", "model.language_model."),
    (r"vision_model\.embeddings\.class_embedding", "model.vision_tower.embeddings.cls_token"),
    (r"vision_model\.embeddings\.position_embedding", "model.vision_tower.embeddings.position_embeddings"),
    (r"vision_model\.embeddings\.patch_embedding\.", "model.vision_tower.embeddings.patch_embeddings.projection."),
    (r"vision_model\.encoder\.layers\.", "model.vision_tower.encoder.layer."),
)
"""Beginning of a name -> what takes its place; the first that fits."""
_IN_LAYER = (
    (r"\.ls([12])$", r".lambda_\1"),
    (r"\.attn\.proj\.", ".attention.projection_layer."),
    (r"\.attn\.([qk])_norm\.", r".attention.\1_norm."),
    (r"\.attn\.", ".attention."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)

_SYSTEM = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"  # noqa: RUF001
_OLDER_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"  # noqa: RUF001
)
_TEMPLATES = {
    "internvl2_5": (_SYSTEM, "<|im_end|>\n"),
    "internlm2-chat": (_OLDER_SYSTEM, "<|im_end|>"),
    "Hermes-2": (_OLDER_SYSTEM, "<|im_end|>"),
}
"""``template`` in config.json -> its system message and what ends a turn; ChatML with the pictures first in the user's
turn. The older ones are InternVL 2's."""
_TOWER = "intern_vit_6b"
"""``model_type`` of every InternViT, whatever its size."""


def is_internvl_chat(config: dict[str, Any]) -> bool:
    """Whether a config.json is of the original layout."""
    return config.get("model_type") == MODEL_TYPE


def rewrite_internvl_chat(source: Path, config: dict[str, Any], out: Path) -> Path:
    """Write the checkpoint in the native layout and return its directory.

    Args:
        source: The original checkpoint directory.
        config: Its config.json.
        out: Directory to make; the weights need as much space as they have.

    Raises:
        UnsupportedArchitectureError: The language model is none of the known ones.
        CheckpointError: A field or file is missing, or has a value that the native layout cannot express.
    """
    documents = describe_internvl_chat(source, config, {})
    native = documents["config"]
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = _write_tokenizer(source, out, native["text_config"]["vocab_size"])
    native["image_token_id"] = tokenizer.convert_tokens_to_ids(_CONTEXT)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    documents["generation_config"] = {"eos_token_id": [end, native["text_config"].get("eos_token_id", end)]}
    tensors = (
        named
        for stored, info in read_inventory(source, MODEL_TYPE).items()
        for named in native_tensors(stored, read_tensor(info), config["llm_config"])
    )
    return write_native(source, out, documents, chat_template(config), tensors)


def describe_internvl_chat(source: Path, config: dict[str, Any], stored: Mapping[str, TensorInfo]) -> Documents:  # noqa: ARG001  (the configuration says everything)
    """The configuration files of the native layout, without the image token's id.

    Args:
        source: The original checkpoint directory.
        config: Its config.json.
        stored: Its tensors; none are needed.

    Raises:
        UnsupportedArchitectureError: The language model is none of the known ones.
        CheckpointError: A field is missing, or has a value that the native layout cannot express.
    """
    chat_template(config)  # a conversation that is not known is the first thing to say
    native = native_config(source, config)
    return {
        "config": native,
        "preprocessor_config": _preprocessor(source, config),
        "processor_config": {"image_seq_length": native["image_seq_length"]},
    }


def native_config(source: Path, config: dict[str, Any]) -> dict[str, Any]:
    """config.json of the native layout, without the image token's id."""
    file = source / "config.json"
    vision, text = _section(file, config, "vision_config"), _section(file, config, "llm_config")
    if vision.get("model_type", _TOWER) != _TOWER:
        raise CheckpointError(file, "vision_config.model_type", f"is {vision['model_type']!r}, known: {_TOWER}")
    architecture = str((text.get("architectures") or ["unknown"])[0])
    if architecture not in _LANGUAGE_MODELS:
        raise UnsupportedArchitectureError(f"InternVLChatModel with {architecture}", _LANGUAGE_MODELS)
    if config.get("ps_version") != "v2" or config.get("select_layer", -1) != -1:
        raise CheckpointError(file, "ps_version", "is not v2 with the last layer, as InternVL 2.5 and later have it")
    side, patch = int(config.get("force_image_size") or vision.get("image_size", 448)), int(vision["patch_size"])
    ratio = float(config.get("downsample_ratio", 0.5))
    renamed = {new: vision[old] for old, new in _RENAMED_FIELDS.items() if new and old in vision}
    tied = bool(text.get("tie_word_embeddings", False))
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "downsample_ratio": ratio,
        "image_seq_length": round(side / patch * ratio) ** 2,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": tied,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "text_config": {
            **_plain(file, text),
            "model_type": _LANGUAGE_MODELS[architecture],
            "tie_word_embeddings": tied,
        },
        "vision_config": {
            "model_type": "internvl_vision",
            **{name: vision[name] for name in _VISION_FIELDS if name in vision},
            **renamed,
            "image_size": [int(vision.get("image_size", side))] * 2,
            "patch_size": [patch, patch],
            "use_absolute_position_embeddings": True,
        },
    }


def _section(file: Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(file, name, "is missing")
    return section


def _plain(file: Path, text: dict[str, Any]) -> dict[str, Any]:
    """Those fields that the language model's class knows; the original lists every default of its time."""
    from transformers import AutoConfig

    architecture = text["architectures"][0]
    known = AutoConfig.for_model(_LANGUAGE_MODELS[architecture]).to_dict()
    known.pop("rope_parameters", None)
    if architecture == internlm2.ARCHITECTURE:
        text = internlm2.llama_config(file, text)
    fields = {key: value for key, value in text.items() if key in {*known, "rope_theta", "rope_scaling", "head_dim"}}
    return {key: value for key, value in fields.items() if not key.startswith("_") and key != "architectures"}


def native_tensors(stored: str, tensor: torch.Tensor, text: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Native names and values of one stored tensor; query, key and value in one matrix become three.

    Args:
        stored: Name in the original layout.
        tensor: Its values.
        text: The language model's section of the original config.json.
    """
    if text["architectures"][0] == internlm2.ARCHITECTURE and stored.startswith(_LANGUAGE):
        for name, values in internlm2.llama_tensors(stored.removeprefix(_LANGUAGE), tensor, text):
            yield native_name(_LANGUAGE + name), values
        return
    name = native_name(stored)
    if ".attention.qkv." not in name:
        yield name, tensor
        return
    for part, values in zip("qkv", tensor.chunk(3), strict=True):
        yield name.replace(".attention.qkv.", f".attention.{part}_proj."), values.clone()


def native_name(stored: str) -> str:
    """Name in the native layout; a name that is not known stays as it is and is refused later."""
    for pattern, target in _NAMES:
        name, count = re.subn(f"^{pattern}", target, stored)
        if count:
            break
    else:
        return stored
    if name.startswith("model.vision_tower.encoder."):
        for pattern, target in _IN_LAYER:
            name, count = re.subn(pattern, target, name)
            if count:
                break
    return name


def _preprocessor(source: Path, config: dict[str, Any]) -> dict[str, Any]:
    file = source / "preprocessor_config.json"
    given = read_json(file) if file.is_file() else {}
    if not config.get("use_thumbnail", True) and config.get("max_dynamic_patch", 12) != 1:
        raise CheckpointError(source / "config.json", "use_thumbnail", "is false, which no released model has")
    side = int(config.get("force_image_size") or config["vision_config"].get("image_size", 448))
    dynamic = bool(config.get("dynamic_image_size", True))
    return {
        "image_processor_type": "GotOcr2ImageProcessor",
        "image_mean": given.get("image_mean", [0.485, 0.456, 0.406]),
        "image_std": given.get("image_std", [0.229, 0.224, 0.225]),
        "max_patches": int(config.get("max_dynamic_patch", 12)) if dynamic else 1,
        "min_patches": int(config.get("min_dynamic_patch", 1)) if dynamic else 1,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }


def chat_template(config: dict[str, Any]) -> str:
    """The conversation template that config.json names, as Jinja.

    Raises:
        CheckpointError: It names another one.
    """
    name = config.get("template")
    if name not in _TEMPLATES:
        reason = f"is {name!r}, known: {', '.join(_TEMPLATES)}"
        raise CheckpointError("config.json", "template", reason)
    given = config.get("system_message")  # null in InternVL 3: its code takes the conversation's own
    if given is not None and not isinstance(given, str):
        raise CheckpointError("config.json", "system_message", f"is {given!r}, expected a text")
    usual, end = _TEMPLATES[name]
    system = json.dumps(usual if given is None else given, ensure_ascii=False)
    end = json.dumps(end)
    return (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n' + " + system + " + " + end + " }}"
        "{% endif %}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for item in message['content'] %}"
        "{% if item['type'] == 'image' %}{{ '<IMG_CONTEXT>\\n' }}"
        "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
        "{{ " + end + " }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )


def _write_tokenizer(source: Path, out: Path, n_vocab: int) -> Any:
    """Save the tokenizer with a tokenizer.json, which original checkpoints often lack."""
    settings, given = source / "tokenizer_config.json", read_settings(source)
    if any((source / name).is_file() for name in ("tokenizer.json", "vocab.json")) and "auto_map" not in given:
        save_tokenizer(source, out)
    elif (source / "tokenizer.model").is_file() and given.get("tokenizer_class") in _PLAIN_SENTENCEPIECE:
        _write_sentencepiece(source / "tokenizer.model", given, out)
    else:
        raise CheckpointError(settings, "auto_map", "asks for a tokenizer class with code of its own, which is not run")
    tokenizer = file_tokenizer(out)
    for marker in ("<img>", "</img>", _CONTEXT):
        if not 0 <= tokenizer.get_vocab().get(marker, -1) < n_vocab:
            raise CheckpointError(source / "tokenizer_config.json", "added_tokens", f"the token {marker} is missing")
    return tokenizer


def _write_sentencepiece(model: Path, given: dict[str, Any], out: Path) -> None:
    """tokenizer.json and its settings from a SentencePiece model, whose own class in Python is not run."""
    (out / "tokenizer.json").write_text(
        json.dumps(convert_sentencepiece(model, given), ensure_ascii=False), encoding="utf-8"
    )
    dropped = ("auto_map", "chat_template", "tokenizer_class", "add_bos_token", "add_eos_token", "sp_model_kwargs")
    settings = {key: value for key, value in given.items() if key not in dropped}
    write_json(out / "tokenizer_config.json", {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})
