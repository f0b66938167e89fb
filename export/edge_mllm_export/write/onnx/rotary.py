"""Tables of rotary angles in the ONNX decoder, computed by transformers' own code from its own parameters.

onnxruntime-genai's model builder knows few kinds of rotary scaling, and for some of those it makes other angles than
the model (a Gemma 3's sliding layers are scaled with its full ones). All of them are a table of cosines and one of
sines, so the builder is told of plain positions, and the tables are written again afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import DecoderBuildError
from edge_mllm_export.families.inventory import empty_causal_lm

if TYPE_CHECKING:
    import onnx

_BEGINNINGS = ("cos_cache", "sin_cache")
_LAYERS = {"": "full_attention", "_global": "full_attention", "_local": "sliding_attention"}
"""Ending of a table's name -> the layers that it is for, where there are several kinds."""


def plain_rotary(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with unscaled positions, for the builder; sections and partial rotation stay."""
    kept = ("rope_theta", "mrope_section", "partial_rotary_factor")

    def plain(parameters: dict[str, Any]) -> dict[str, Any]:
        return {name: parameters[name] for name in kept if name in parameters} | {"rope_type": "default"}

    given = config.get("rope_parameters") or {}
    nested = any(isinstance(value, dict) for value in given.values())
    return config | {"rope_parameters": {k: plain(v) for k, v in given.items()} if nested else plain(given)}


def write_rotary_tables(model: onnx.ModelProto, config: dict[str, Any]) -> None:
    """Compute every table of rotary angles again, in place.

    Args:
        model: As the builder made it; its tables are ``cos_cache`` and ``sin_cache`` [positions, pairs].
        config: config.json of the plain causal LM.

    Raises:
        DecoderBuildError: There is no table, one of unknown use, or one of another width than the model's frequencies.
    """
    import torch
    from onnx import numpy_helper

    rotary = _rotary(config)
    tables = [table for table in model.graph.initializer if table.name.startswith(_BEGINNINGS)]
    if not tables:
        raise DecoderBuildError("onnxruntime-genai's graph holds no table of rotary angles")
    for table in tables:
        ending = table.name.removeprefix("cos_cache").removeprefix("sin_cache")
        if ending not in _LAYERS:
            raise DecoderBuildError(f"nothing is known of {table.name}, a table of onnxruntime-genai's graph")
        frequencies, scale = _frequencies(rotary, _LAYERS[ending])
        rows, pairs = table.dims
        if len(frequencies) != pairs:
            raise DecoderBuildError(f"{table.name} has {pairs} pairs a head, but the model turns {len(frequencies)}")
        angles = torch.outer(torch.arange(rows, dtype=torch.float32), frequencies)
        values = (angles.cos() if table.name.startswith("cos") else angles.sin()) * scale
        stored = numpy_helper.to_array(table).dtype
        table.CopyFrom(numpy_helper.from_array(values.numpy().astype(stored), table.name))


def _rotary(config: dict[str, Any]) -> Any:
    """The model's own rotary module, with its numbers."""
    import torch

    empty = next(part for name, part in empty_causal_lm(config).named_modules() if name.endswith("rotary_emb"))
    with torch.device("cpu"):
        return type(empty)(empty.config)


def _frequencies(rotary: Any, layers: str) -> tuple[Any, float]:
    """Inverse frequencies float32 [pairs], and what cosines and sines are multiplied with."""
    prefix = f"{layers}_" if hasattr(rotary, f"{layers}_inv_freq") else ""
    return getattr(rotary, f"{prefix}inv_freq").float(), float(getattr(rotary, f"{prefix}attention_scaling"))
