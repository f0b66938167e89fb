"""Ferret-UI checkpoints in the layout of apple/ml-ferret, rewritten as this project's ``ferret_ui``.

They are a CLIP, a two-layer projector and a Gemma or Llama under names of LLaVA's first code, and need code of their
own from the hub. None of it is run. Names, fields and prompts follow apple/ml-ferret (folder ferretui) and the
configurations of jadechoghari/Ferret-UI-Gemma2b and Ferret-UI-Llama8b.

Their sampler of region features is left out. The original code does not touch it either when a question names no
region by a mask; a box is then given as text.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_mllm_export.checkpoint.tensor_store import TensorInfo, read_inventory, read_tensor
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.llava.llava import CLIP_MEAN, CLIP_STD
from edge_mllm_export.source.layouts.ferret_prompt import DIALECTS, IMAGE, chat_template, write_tokenizer
from edge_mllm_export.source.layouts.native import (
    PROJECTOR,
    Documents,
    renamed,
    text_fields,
    tower_sizes,
    write_native,
)

LOGGER = logging.getLogger(__name__)
_KINDS = {"ferret_gemma": "gemma", "ferret_llama": "llama"}
"""``model_type`` -> that of the language model."""
_NAMES = (
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    *PROJECTOR,
    ("model.", "model.language_model."),
)
_REGIONS = ("model.region_geo_sampler.", "model.region_fea_adapter.")
_HEAD, _TABLE = "lm_head.weight", "model.language_model.embed_tokens.weight"
_EXPECTED: dict[str, tuple[Any, ...]] = {
    "image_aspect_ratio": ("anyres",),
    "mm_patch_merge_type": ("spatial",),
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_vision_select_feature": ("patch", None),
    "mm_use_im_start_end": (False, None),
}
"""What the published configurations say, and what is done here."""
_CLIP = re.compile(r"clip-vit-(base|large)-patch(\d+)(?:-(\d+))?$")
_HEADS = {"base": 12, "large": 16}
_SIZES = {"base": (768, 3072, 12), "large": (1024, 4096, 24)}
"""CLIP's sizes -> width, width inside of a layer, layers."""
_USUAL_SIDE = 224


def is_ferret_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of this layout."""
    return config.get("model_type") in _KINDS


def rewrite_ferret_original(source: Path, config: dict[str, Any], out: Path) -> Path:
    """Write the checkpoint as ``ferret_ui`` and return its directory.

    Args:
        source: The original checkpoint directory.
        config: Its config.json.
        out: Directory to make; the weights need as much space as they have.

    Raises:
        CheckpointError: A field or file is missing, or has a value that is not the published models'.
    """
    stored = read_inventory(source, str(config["model_type"]))
    regions = [name for name in stored if name.startswith(_REGIONS)]
    documents = describe_ferret_original(source, config, stored)
    native, tensors = documents["config"], _named(stored)
    text = native["text_config"]
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(source, out, text)
    native["image_token_index"] = tokenizer.token_to_id(IMAGE)
    template = chat_template(text["model_type"], begins=len(tokenizer.encode("").ids))
    ends = [tokenizer.token_to_id(DIALECTS[text["model_type"]].end), text.get("eos_token_id")]
    documents["generation_config"] = {"eos_token_id": [end for end in ends if end is not None]}
    if regions:
        LOGGER.warning(
            "%d tensors of the region sampler are left out; give a box as text, [x1, y1, x2, y2] from 0 to 1000",
            len(regions),
        )
    return write_native(source, out, documents, template, _weights(tensors, tied=native["tie_word_embeddings"]))


def describe_ferret_original(source: Path, config: dict[str, Any], stored: Mapping[str, TensorInfo]) -> Documents:
    """The configuration files of ``ferret_ui``, before the vocabulary has a token for pictures.

    Args:
        source: The original checkpoint directory, for messages.
        config: Its config.json.
        stored: Its tensors; none where only configuration files are there.

    Raises:
        CheckpointError: A field is missing, or has a value that is not the published models'.
    """
    native = _native_config(source / "config.json", config, _named(stored))
    return {
        "config": native,
        "preprocessor_config": native_preprocessor(native),
        "processor_config": {"image_token": IMAGE},
    }


def _named(stored: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    return {renamed(name, _NAMES): info for name, info in stored.items() if not name.startswith(_REGIONS)}


def _weights(tensors: Mapping[str, TensorInfo], *, tied: bool) -> Iterator[tuple[str, Any]]:
    """All tensors; of a tied model without the head that published files carry beside the table."""
    import torch

    for name, info in tensors.items():
        if name != _HEAD or not tied:
            yield name, read_tensor(info)
        elif _TABLE in tensors and not torch.equal(read_tensor(info), read_tensor(tensors[_TABLE])):
            LOGGER.warning("%s differs from the embedding table, which the original code takes in its place", name)


def _native_config(file: Path, config: dict[str, Any], tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    for field, known in _EXPECTED.items():
        if config.get(field) not in known:
            raise CheckpointError(file, field, f"is {config.get(field)!r}, expected {known[0]!r}")
    text = _text(file, config)
    vision = _vision(file, config, tensors)
    layers = vision["num_hidden_layers"]
    taken = config.get("mm_vision_select_layer")
    if not isinstance(taken, int) or isinstance(taken, bool) or not -layers <= taken <= -1:
        raise CheckpointError(file, "mm_vision_select_layer", f"is {taken!r}, expected -1 to -{layers}")
    return {
        "architectures": ["FerretUIForConditionalGeneration"],
        "model_type": "ferret_ui",
        "image_grid_pinpoints": _pinpoints(file, config, vision["image_size"]),
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "tie_word_embeddings": text["tie_word_embeddings"],
        "vision_feature_layer": taken,
        "vision_feature_select_strategy": "default",
        "text_config": text,
        "vision_config": vision,
    }


def _text(file: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The language model's fields. What Gemma's class of that time made of an activation is written out."""
    from transformers import AutoConfig

    kind = _KINDS[config["model_type"]]
    fields = text_fields(file, config | {"model_type": kind})
    if kind == "gemma":
        fields["hidden_act"] = config.get("hidden_activation") or "gelu_pytorch_tanh"
    fields.setdefault("tie_word_embeddings", bool(AutoConfig.for_model(kind).tie_word_embeddings))
    return fields | {"model_type": kind}


def _vision(file: Path, config: dict[str, Any], tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """The configuration names its tower only; what the name does not say, the shapes of its tensors do."""
    named = str(config.get("mm_vision_tower"))
    known = _CLIP.search(named)
    if known is None:
        raise CheckpointError(file, "mm_vision_tower", f"is {named!r}, known: clip-vit-SIZE-patchN-N")
    return {
        "model_type": "clip_vision_model",
        **tower_sizes(file, named, tensors, _SIZES[known[1]]),
        "num_attention_heads": _HEADS[known[1]],
        "patch_size": int(known[2]),
        "image_size": int(known[3] or _USUAL_SIDE),
        "hidden_act": "quick_gelu",
    }


def _pinpoints(file: Path, config: dict[str, Any], side: int) -> list[list[int]]:
    """Heights and widths of the grids; the original has widths and heights, as a list or as its text."""
    field = "image_grid_pinpoints"
    points = config.get(field)
    if isinstance(points, str):
        try:
            points = json.loads(points.replace("(", "[").replace(")", "]"))
        except ValueError:
            raise CheckpointError(file, field, f"is {points[:80]!r}, which is no list") from None
    pairs = points if isinstance(points, list) else []
    whole = [pair for pair in pairs if isinstance(pair, list) and len(pair) == 2 and all(_tiles(n, side) for n in pair)]
    if not pairs or len(whole) != len(pairs):
        reason = f"is {str(points)[:80]}, expected [width, height] pairs in whole tiles of {side} px"
        raise CheckpointError(file, field, reason)
    return [[height, width] for width, height in pairs]


def _tiles(value: Any, side: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= side and value % side == 0


def native_preprocessor(native: dict[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json of a native config.json: CLIP's own processing of tiles, stretched and never cropped."""
    side = native["vision_config"]["image_size"]
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": False,
        "image_grid_pinpoints": native["image_grid_pinpoints"],
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
