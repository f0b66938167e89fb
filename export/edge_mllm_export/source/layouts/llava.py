"""Checkpoints in the layouts of Bunny and of TinyLLaVA Factory, rewritten as transformers' LLaVA.

Both are a SigLIP, a two-layer projector and a small language model under names of their own, and need code of their own
from the hub. None of it is run. Names, picture processing and prompts follow the sources of BAAI-DCAI/Bunny and of
TinyLLaVA/TinyLLaVA_Factory (both Apache-2.0); LLaVA-KD has the latter's layout.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.checkpoint.tensor_store import TensorInfo, read_inventory, read_tensor
from edge_mllm_export.errors import CheckpointError, UnsupportedArchitectureError
from edge_mllm_export.families.llava.llava_phi import ARCHITECTURE as LLAVA_PHI
from edge_mllm_export.source.layouts.llava_prompt import END, IMAGE, chat_template, write_tokenizer
from edge_mllm_export.source.layouts.native import (
    LAYER,
    PROJECTOR,
    Documents,
    renamed,
    text_fields,
    tower_layers,
    tower_sizes,
    whole_number,
    write_native,
)

if TYPE_CHECKING:
    import torch

_BACKBONES = {"qwen2": "LlavaForConditionalGeneration", "llama": "LlavaForConditionalGeneration", "phi": LLAVA_PHI}
"""Language models that are known -> the class that has them."""
_LACKING = {
    "phi3": "Phi-3's prompt, which is not in the checkpoint",
    "stablelm": "StableLM's partial rotary embedding",
    "minicpm": "MiniCPM's scaled residuals",
    "gemma": "the scale of pictures before a Gemma in this layout",
    "openelm": "OpenELM's layers of different widths",
}
"""Language models of published checkpoints that no decoder writer knows -> what is missing."""
_SIGLIP = re.compile(r"(?:^|/)siglip-(base|large|so400m)-patch(\d+)-(\d+)$")
_HEADS = {"base": 12, "large": 16, "so400m": 16}
_SIZES = {"base": (768, 3072, 12), "large": (1024, 4096, 24), "so400m": (1152, 4304, 27)}
"""SigLIP's sizes -> width, width inside of a layer, layers."""

_ROWS = {"model.language_model.embed_tokens.weight": 0.0, "lm_head.weight": 0.0, "lm_head.bias": -10000.0}
"""Tables that get a row for the picture's token where none is free -> what is in it. Only a head with a bias can keep
that token from ever being the answer."""


@dataclass(frozen=True)
class _Layout:
    """One original layout."""

    names: tuple[tuple[str, str], ...]
    """Beginnings of stored names -> LLaVA's, the first that fits."""
    text: Callable[[Path, dict[str, Any]], dict[str, Any]]
    """The language model's configuration, from config.json."""
    vision: Callable[[Path, dict[str, Any], Mapping[str, TensorInfo]], dict[str, Any]]
    """The tower's configuration, from config.json and the tensors under LLaVA's names."""
    projector: str
    """The field of config.json that says what the projector is."""
    drops_first_patch: bool
    """Whether the first patch is taken for a class token. SigLIP has none, but TinyLLaVA is trained that way."""
    trims: bool
    """Whether a question beside a picture loses the spaces around it."""


def _bunny_text(file: Path, config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "model_type": _backbone(file, "model_type", str(config["model_type"]).removeprefix("bunny-"))}


def _tiny_text(file: Path, config: dict[str, Any]) -> dict[str, Any]:
    text = config.get("text_config")
    if not isinstance(text, dict):
        raise CheckpointError(file, "text_config", "is not a JSON object")
    return {**text, "model_type": _backbone(file, "text_config.model_type", str(text.get("model_type")))}


def _backbone(file: Path, field: str, found: str) -> str:
    name = {"qwen": "qwen2", "qwen1.5": "qwen2"}.get(found, found)
    if name in _BACKBONES:
        return name
    if name in _LACKING:
        reason = f"the decoder writers lack {_LACKING[name]}"
        raise UnsupportedArchitectureError(f"LLaVA with {name}", _BACKBONES, reason)
    raise CheckpointError(file, field, f"is {found!r}, known: {', '.join(_BACKBONES)}")


def _bunny_vision(file: Path, config: dict[str, Any], tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Bunny names its tower only; what the name does not say, the shapes of its tensors do."""
    named = str(config.get("mm_vision_tower"))
    known = _SIGLIP.search(named)
    if known is None:
        reason = f"is {named!r}, known: siglip-SIZE-patchN-N"
        raise CheckpointError(file, "mm_vision_tower", reason)
    size, patch, side = known[1], int(known[2]), int(known[3])
    return {
        **tower_sizes(file, named, tensors, _SIZES[size]),
        "num_attention_heads": _HEADS[size],
        "image_size": side,
        "patch_size": patch,
    }


def _tiny_vision(file: Path, config: dict[str, Any], tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        raise CheckpointError(file, "vision_config", "is not a JSON object")
    if vision.get("model_type") != "siglip_vision_model":
        reason = f"is {vision.get('model_type')!r}, known: siglip_vision_model"
        raise CheckpointError(file, "vision_config.model_type", reason)
    if tensors and f"{LAYER}0.mlp.fc1.weight" not in tensors:
        raise CheckpointError(file.parent, "tensors", "holds no tower; its weights have to be in the checkpoint")
    fields = ("hidden_size", "intermediate_size", "num_attention_heads", "image_size", "patch_size", "layer_norm_eps")
    layers = tower_layers(tensors) if tensors else whole_number(file, vision, "num_hidden_layers", 12, "vision_config.")
    return {"num_hidden_layers": layers, **{name: vision[name] for name in fields if name in vision}}


_BUNNY = _Layout(
    names=(
        ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
        *PROJECTOR,
        ("model.", "model.language_model."),
    ),
    text=_bunny_text,
    vision=_bunny_vision,
    projector="mm_projector_type",
    drops_first_patch=False,
    trims=False,
)
_TINY = _Layout(
    names=(
        ("vision_tower._vision_tower.vision_model.", "model.vision_tower."),
        ("connector._connector.0.", "model.multi_modal_projector.linear_1."),
        ("connector._connector.2.", "model.multi_modal_projector.linear_2."),
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
    ),
    text=_tiny_text,
    vision=_tiny_vision,
    projector="connector_type",
    drops_first_patch=True,
    trims=True,
)


def is_llava_original(config: dict[str, Any]) -> bool:
    """Whether a config.json is of one of these layouts."""
    model_type = str(config.get("model_type"))
    return model_type == "tinyllava" or model_type.startswith("bunny-")


def rewrite_llava_original(source: Path, config: dict[str, Any], out: Path) -> Path:
    """Write the checkpoint in transformers' LLaVA layout and return its directory.

    Args:
        source: The original checkpoint directory.
        config: Its config.json.
        out: Directory to make; the weights need as much space as they have.

    Raises:
        UnsupportedArchitectureError: No decoder writer knows the language model.
        CheckpointError: A field or file is missing, or has a value that LLaVA cannot express.
    """
    layout = _layout(config)
    describe_llava_original(source, config, {})  # what cannot be read at all is said before weights are looked for
    stored = read_inventory(source, str(config["model_type"]))
    documents = describe_llava_original(source, config, stored)
    native, tensors = documents["config"], _named(layout, stored)
    out.mkdir(parents=True, exist_ok=True)
    n_vocab = native["text_config"]["vocab_size"]
    tokenizer = write_tokenizer(source, out, n_vocab, may_grow=native["architectures"] == [LLAVA_PHI])
    native["image_token_index"] = tokenizer.token_to_id(IMAGE)
    grown = native["image_token_index"] == n_vocab
    native["text_config"]["vocab_size"] = n_vocab + int(grown)
    documents["generation_config"] = {"eos_token_id": tokenizer.token_to_id(END)}
    return write_native(source, out, documents, chat_template(trims=layout.trims), _weights(tensors, grown=grown))


def describe_llava_original(source: Path, config: dict[str, Any], stored: Mapping[str, TensorInfo]) -> Documents:
    """The configuration files of transformers' LLaVA, before the vocabulary has a token for pictures.

    Args:
        source: The original checkpoint directory, for messages.
        config: Its config.json.
        stored: Its tensors; none where only configuration files are there.

    Raises:
        UnsupportedArchitectureError: No decoder writer knows the language model.
        CheckpointError: A field is missing, or has a value that LLaVA cannot express.
    """
    layout, file = _layout(config), source / "config.json"
    native = _native_config(file, config, layout, layout.text(file, config), _named(layout, stored))
    return {
        "config": native,
        "preprocessor_config": _preprocessor(file, config, native["vision_config"]["image_size"]),
        "processor_config": {"image_token": IMAGE},
    }


def _layout(config: Mapping[str, Any]) -> _Layout:
    return _TINY if config["model_type"] == "tinyllava" else _BUNNY


def _named(layout: _Layout, stored: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    return {renamed(name, layout.names): info for name, info in stored.items()}


def _weights(tensors: Mapping[str, TensorInfo], *, grown: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors; those with a row a token get one more where the vocabulary has grown."""
    for name, info in tensors.items():
        tensor = read_tensor(info)
        yield name, _with_row(tensor, _ROWS[name]) if grown and name in _ROWS else tensor


def _with_row(tensor: torch.Tensor, value: float) -> torch.Tensor:
    """A table with one row more, of one value."""
    import torch

    return torch.cat((tensor, torch.full_like(tensor[:1], value)))


def _native_config(
    file: Path, config: dict[str, Any], layout: _Layout, text: dict[str, Any], tensors: Mapping[str, TensorInfo]
) -> dict[str, Any]:
    if config.get(layout.projector) != "mlp2x_gelu":
        reason = f"is {config.get(layout.projector)!r}, known: mlp2x_gelu"
        raise CheckpointError(file, layout.projector, reason)
    if config.get("use_s2"):
        raise CheckpointError(file, "use_s2", "is true: pictures at several scales are not supported")
    vision = layout.vision(file, config, tensors)
    tied = bool(text.get("tie_word_embeddings", False))
    return {
        "architectures": [_BACKBONES[text["model_type"]]],
        "model_type": "llava",
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "tie_word_embeddings": tied,
        "vision_feature_layer": _feature_layer(file, config, layout, vision["num_hidden_layers"]),
        "vision_feature_select_strategy": _strategy(file, config, layout),
        "text_config": {**text_fields(file, text), "model_type": text["model_type"], "tie_word_embeddings": tied},
        "vision_config": {
            "model_type": "siglip_vision_model",
            **vision,
            "vision_use_head": any(name.startswith("model.vision_tower.head.") for name in tensors),
        },
    }


def _feature_layer(file: Path, config: dict[str, Any], layout: _Layout, layers: int) -> int:
    """The states behind the last layer but one, which published Bunny towers may leave out."""
    if layout is _BUNNY:
        known = _SIGLIP.search(str(config.get("mm_vision_tower")))
        return -1 if known is not None and layers == _SIZES[known[1]][2] - 1 else -2
    asked = config.get("vision_feature_layer", -2)
    if not isinstance(asked, int) or isinstance(asked, bool) or not -layers <= asked <= -1:
        raise CheckpointError(file, "vision_feature_layer", f"is {asked!r}, expected -1 to -{layers}")
    return asked


def _strategy(file: Path, config: dict[str, Any], layout: _Layout) -> str:
    if not layout.drops_first_patch:
        return "full"
    known = {"patch": "default", "cls_patch": "full"}
    found = config.get("vision_feature_select_strategy", "patch")
    if found not in known:
        raise CheckpointError(file, "vision_feature_select_strategy", f"is {found!r}, known: {', '.join(known)}")
    return known[found]


def _preprocessor(file: Path, config: dict[str, Any], side: int) -> dict[str, Any]:
    """SigLIP's own processing, or with ``pad`` a square in the mean's colour first."""
    aspect = config.get("image_aspect_ratio", "square")
    if aspect not in (None, "square", "pad"):
        raise CheckpointError(file, "image_aspect_ratio", f"is {aspect!r}, known: square, pad")
    half = [0.5, 0.5, 0.5]
    shared = {"image_mean": half, "image_std": half, "resample": 3, "rescale_factor": 1 / 255}
    square = {"height": side, "width": side}
    if aspect != "pad":
        return {"image_processor_type": "SiglipImageProcessor", "size": square, **shared}
    return {
        "image_processor_type": "LlavaImageProcessor",
        "do_center_crop": True,
        "do_pad": True,
        "size": {"shortest_edge": side},
        "crop_size": square,
        **shared,
    }
