"""Rotary positions as llama.cpp reads them: metadata, tensors of factors, the order of rows, and what it cannot do."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.rotary import FIELD, attention_factor, by_layer, original_length, scaling_factor
from edge_mllm_export.families.text_config import TIME_LAST
from edge_mllm_export.gguf.file import gguf_library

if TYPE_CHECKING:
    import gguf

    from edge_mllm_export.write.gguf.text_config import TextConfig


def write_rotary_width(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """How many dimensions of a head are rotated."""
    writer.add_rope_dimension_count(int(config.rope().get("partial_rotary_factor", 1.0) * config.head_dim))


def write_rotary(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """The base of the frequencies and how they are scaled."""
    rope = config.rope()
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    kind, values = rope["rope_type"], dict(config.values)
    scaling = gguf_library().RopeScalingType
    attention = attention_factor(values, rope)
    if kind in ("linear", "yarn"):
        factor = scaling_factor(values, rope)
        writer.add_rope_scaling_type(scaling.LINEAR if kind == "linear" else scaling.YARN)
        writer.add_rope_scaling_factor(factor)
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(original_length(values, rope))
        attention /= 1 + 0.1 * math.log(factor)  # which llama.cpp multiplies with (ggml_rope_yarn)
    if kind == "longrope" or not math.isclose(attention, 1.0):
        writer.add_rope_scaling_attn_factors(attention)


def write_rotary_sections(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """How many pairs each axis of a position has."""
    sections = list(config.rope().get("mrope_section", ()))
    if not sections:
        raise CheckpointError("config.json", "rope_parameters.mrope_section", "is missing")
    if config.get(TIME_LAST):  # llama.cpp orders its cells by the first axis, so no frequency is turned by that
        time, *others = sections
        sections = [0, *others, time]
    writer.add_rope_dimension_sections((sections + [0] * 4)[:4])


def write_original_context(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """Positions in training, before frequencies were scaled."""
    writer.add_rope_scaling_orig_ctx_len(original_length(dict(config.values), config.rope()))


def write_long_context(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """The same where a kind of scaling needs them."""
    if config.rope()["rope_type"] == "longrope":
        writer.add_rope_scaling_type(gguf_library().RopeScalingType.LONGROPE)
        write_original_context(writer, config)


def _llama3_factors(config: TextConfig) -> dict[str, FloatArray]:
    """Per-frequency divisors of Llama 3.1's rotary scaling (transformers, modeling_rope_utils.py, "llama3")."""
    rope = config.rope()
    if rope["rope_type"] != "llama3":
        return {}
    dim = config.head_dim
    frequencies = 1.0 / float(rope["rope_theta"]) ** (np.arange(0, dim, 2, dtype=np.float32) / dim)
    wavelength = 2 * math.pi / frequencies
    context, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (context / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / rope["factor"] + smooth)
    factors = np.where(wavelength > context / low, rope["factor"], between)
    factors = np.where(wavelength < context / high, 1.0, factors)
    return {"rope_freqs.weight": factors.astype(np.float32)}


def longrope_factors(config: TextConfig) -> dict[str, FloatArray]:
    """llama.cpp takes the long ones by the context that it is opened with; where none is longer, both are the short."""
    rope = config.rope()
    if rope["rope_type"] != "longrope":
        return {}
    beyond = config.need("max_position_embeddings") > original_length(dict(config.values), rope)
    return {
        "rope_factors_long.weight": np.asarray(rope["long_factor" if beyond else "short_factor"], dtype=np.float32),
        "rope_factors_short.weight": np.asarray(rope["short_factor"], dtype=np.float32),
    }


def llama_factors(config: TextConfig) -> dict[str, FloatArray]:
    """Divisors of the frequencies for each kind of scaling that llama.cpp reads from a tensor."""
    return _llama3_factors(config) | longrope_factors(config)


_YARN = {"beta_fast": 32, "beta_slow": 1, "truncate": True}
"""What llama.cpp computes with for these architectures, whatever the file says."""


def check_rotary(config: TextConfig, arch: str, kinds: Collection[str]) -> None:
    """Refuse a kind of rotary positions that llama.cpp does not compute as transformers does.

    Args:
        config: Of the language model.
        arch: As llama.cpp names it.
        kinds: Values of ``rope_type`` that it computes for this architecture.

    Raises:
        CheckpointError: The configuration has another kind, or a parameter that llama.cpp does not read.
    """
    for layers, rope in by_layer(dict(config.values)).items():
        known = ("default",) if layers == "sliding_attention" else kinds
        place = ".".join(part for part in (FIELD, layers) if part)
        if rope["rope_type"] not in known:
            reason = f"is '{rope['rope_type']}', which llama.cpp does not do for {arch}; use `format='onnx'`"
            raise CheckpointError("config.json", f"{place}.rope_type", reason)
        for name, fixed in _YARN.items():
            if rope["rope_type"] == "yarn" and (rope[name] if rope.get(name) is not None else fixed) != fixed:
                reason = f"is {rope[name]!r}, but llama.cpp computes with {fixed!r}; use `format='onnx'`"
                raise CheckpointError("config.json", f"{place}.{name}", reason)


def interleave_rotary(weight: FloatArray, heads: int) -> FloatArray:
    """Reorder rows of q or k from rotate-half order to neighbouring pairs.

    The inverse of the permutation that transformers applies to Meta's Llama weights
    (transformers, convert_llama_weights_to_hf.py).

    Args:
        weight: float32 [heads * head_dim, ...].
        heads: number of heads in this projection.
    """
    head_dim = weight.shape[0] // heads
    split = weight.reshape(heads, 2, head_dim // 2, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)
