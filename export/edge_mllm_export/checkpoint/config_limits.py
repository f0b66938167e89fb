"""Sizes in config.json that cannot be true, refused before any memory is asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edge_mllm_export.errors import CheckpointError

_LIMITS = {
    "hidden_size": 1 << 16,
    "intermediate_size": 1 << 19,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 10,
    "num_key_value_heads": 1 << 10,
    "head_dim": 1 << 12,
    "vocab_size": 1 << 22,
    "max_position_embeddings": 1 << 27,
    "image_size": 1 << 14,
    "patch_size": 1 << 10,
    "num_channels": 16,
    "scale_factor": 64,
    "depth": 1 << 10,
    "embed_dim": 1 << 16,
    "num_heads": 1 << 10,
    "spatial_merge_size": 64,
    "temporal_patch_size": 64,
}
"""Field -> largest value that is believed, far above every published model."""


_PROCESSOR_LIMITS = {
    "size": 1 << 31,  # sides, or pixels of the whole picture
    "crop_size": 1 << 14,
    "max_image_size": 1 << 14,
    "min_pixels": 1 << 31,
    "max_pixels": 1 << 31,
    "patch_size": 1 << 10,
    "merge_size": 64,
    "temporal_patch_size": 64,
    "min_patches": 1 << 10,
    "max_patches": 1 << 10,
}
"""The same for preprocessor_config.json, where a size may be one number or several with names."""
_POSITIVE = ("rope_theta", "rms_norm_eps", "layer_norm_eps", "downsample_ratio")
"""Fields that are numbers above 0."""
_SECTIONS = ("text_config", "vision_config")
"""Sections that may be absent, but not null: then every size in them would be a default of transformers."""


def check_config(file: Path, config: dict[str, Any]) -> None:
    """Check the known sizes at the top level and in every ``*_config``.

    Raises:
        CheckpointError: A size is not a whole number between 1 and its limit, or the heads do not divide each other.
    """
    sections = {"": config} | {f"{name}.": value for name, value in config.items() if name.endswith("_config")}
    for prefix, section in sections.items():
        if section is None and prefix[:-1] not in _SECTIONS:
            continue
        if not isinstance(section, dict):
            raise CheckpointError(file, prefix[:-1], "is not a JSON object")
        for name, limit in _LIMITS.items():
            if section.get(name) is not None:
                _check_size(file, prefix + name, section[name], limit)
        _check_heads(file, prefix, section)
        for place, values in ((prefix, section), (f"{prefix}rope_parameters.", section.get("rope_parameters"))):
            _check_positive(file, place, values)


def check_processor(file: Path, processor: dict[str, Any]) -> None:
    """Check the sizes that an image processor is given.

    Raises:
        CheckpointError: One is not a whole number between 1 and its limit.
    """
    for name, limit in _PROCESSOR_LIMITS.items():
        found = processor.get(name)
        for key, value in found.items() if isinstance(found, dict) else [("", found)]:
            if value is not None:
                _check_size(file, f"{name}.{key}" if key else name, value, limit)


def _check_positive(file: Path, prefix: str, values: Any) -> None:
    if not isinstance(values, dict):
        return
    for name in _POSITIVE:
        value = values.get(name, 1)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and 0 < value < math.inf):
            raise CheckpointError(file, prefix + name, f"is {value!r}, expected a number above 0")


def _check_size(file: Path, field: str, value: Any, limit: int) -> None:
    values = value if isinstance(value, list) and value else [value]  # image_size may be [height, width]
    for number in values:
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= limit:
            raise CheckpointError(file, field, f"is {value!r}, expected a whole number from 1 to {limit}")


def _check_heads(file: Path, prefix: str, section: dict[str, Any]) -> None:
    heads, groups = section.get("num_attention_heads"), section.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(groups, int) and heads % groups:
        raise CheckpointError(file, f"{prefix}num_key_value_heads", f"is {groups}, which does not divide {heads} heads")
