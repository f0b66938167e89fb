"""Language model architectures as llama.cpp names them: metadata keys, tensor names, and what changes on the way.

Keys and conventions are those of the GGUF specification (ggml/docs/gguf.md) as llama.cpp's loader reads them; tensor
names come from gguf-py's own tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm_export.errors import CheckpointError, UnsupportedArchitectureError
from edge_mllm_export.families.rotary import (
    FIELD,
    attention_factor,
    by_layer,
    original_length,
    scaling_factor,
)
from edge_mllm_export.families.text_config import DEEPSTACK, TIME_LAST
from edge_mllm_export.gguf.file import gguf_library
from edge_mllm_export.write.gguf import hybrid
from edge_mllm_export.write.gguf.text_config import TextConfig

if TYPE_CHECKING:
    import gguf


_EVERYWHERE = ("default", "linear", "yarn")


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One architecture of language models."""

    arch: str
    """The value of ``general.architecture``."""
    model_types: tuple[str, ...]
    """``model_type`` in config.json."""
    keys: tuple[Callable[[gguf.GGUFWriter, TextConfig], None], ...]
    """Write the metadata that this architecture's loader reads."""
    interleaved_rotary: bool = False
    """Rotary pairs are neighbours in the file but half a head apart in the checkpoint, so q and k are permuted."""
    norm_shift: float = 0.0
    """Added to norm weights that the checkpoint stores as a difference from one."""
    rotary: tuple[str, ...] = _EVERYWHERE
    """Kinds of rotary positions that llama.cpp computes as transformers does, see :mod:`..families.rotary`."""
    computed: Callable[[TextConfig], dict[str, FloatArray]] = field(default=lambda _: {})
    """Tensors that are computed from the configuration."""
    stored_name: Callable[[str], str] = field(default=lambda name: name)
    """Name of a tensor of the plain causal LM -> the one that gguf-py's table knows."""
    stored_shape: Callable[[str, tuple[int, ...]], tuple[int, ...]] = field(default=lambda _, shape: shape)
    """Name and shape of a tensor -> its shape in the file."""
    stored_values: Callable[[TextConfig, str, FloatArray], FloatArray] = field(default=lambda _, __, values: values)
    """Name and values float32 of a tensor -> its values in the file."""
    check: Callable[[TextConfig], None] = field(default=lambda _: None)
    """Refuses, before anything is read, what llama.cpp computes otherwise."""


def _shape(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    _sizes(writer, config)
    writer.add_layer_norm_rms_eps(config.need("rms_norm_eps"))


def _sizes(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    writer.add_block_count(config.need("num_hidden_layers"))
    writer.add_context_length(config.need("max_position_embeddings"))
    writer.add_embedding_length(config.need("hidden_size"))
    writer.add_feed_forward_length(config.need("intermediate_size"))
    writer.add_head_count(config.need("num_attention_heads"))
    writer.add_head_count_kv(config.kv_heads)


def _head_width(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    if config.get("head_dim") is not None:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)


def _vocabulary_size(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    writer.add_vocab_size(config.need("vocab_size"))


def _rotary_width(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    writer.add_rope_dimension_count(int(config.rope().get("partial_rotary_factor", 1.0) * config.head_dim))


def _rotary(writer: gguf.GGUFWriter, config: TextConfig) -> None:
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


def _rotary_sections(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    sections = list(config.rope().get("mrope_section", ()))
    if not sections:
        raise CheckpointError("config.json", "rope_parameters.mrope_section", "is missing")
    if config.get(TIME_LAST):  # llama.cpp orders its cells by the first axis, so no frequency is turned by that
        time, *others = sections
        sections = [0, *others, time]
    writer.add_rope_dimension_sections((sections + [0] * 4)[:4])


def _deepstack(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    writer.add_num_deepstack_layers(config.get(DEEPSTACK, 0))


def _phi2(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    _sizes(writer, config)
    writer.add_layer_norm_eps(config.need("layer_norm_eps"))
    if config.get("hidden_act", "gelu_new") != "gelu_new":
        reason = f"is {config.get('hidden_act')!r}, but llama.cpp computes gelu_new here"
        raise CheckpointError("config.json", "hidden_act", reason)


def _phi3(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    _original_context(writer, config)
    writer.add_sliding_window(config.get("sliding_window", 0))


def _original_context(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    writer.add_rope_scaling_orig_ctx_len(original_length(dict(config.values), config.rope()))


def _long_context(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    if config.rope()["rope_type"] == "longrope":
        writer.add_rope_scaling_type(gguf_library().RopeScalingType.LONGROPE)
        _original_context(writer, config)


def _check_gemma(config: TextConfig) -> None:
    if not config.get("tie_word_embeddings", True):
        reason = "is false, but llama.cpp takes the embedding table for this model's output head"
        raise CheckpointError("config.json", "tie_word_embeddings", reason)
    if config.get("hidden_act", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        reason = f"is {config.get('hidden_act')!r}, but llama.cpp computes gelu_pytorch_tanh here"
        raise CheckpointError("config.json", "hidden_act", reason)


def _gemma3(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    local = config.rope("sliding_attention").get("rope_theta")
    if local is not None:
        writer.add_rope_freq_base_swa(float(local))
    if config.get("attn_logit_softcapping") is not None:
        raise CheckpointError("config.json", "attn_logit_softcapping", "is set, which llama.cpp does not do here")
    if config.get("query_pre_attn_scalar", config.head_dim) != config.head_dim:
        reason = f"is not the head's width ({config.head_dim}), by which llama.cpp scales attention"
        raise CheckpointError("config.json", "query_pre_attn_scalar", reason)
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config.get("final_logit_softcapping"))
    writer.add_sliding_window(config.need("sliding_window"))
    every_sixth = [bool((layer + 1) % 6) for layer in range(config.need("num_hidden_layers"))]
    sliding = [kind == "sliding_attention" for kind in config.get("layer_types", ())]
    if sliding and sliding != every_sixth:
        writer.add_sliding_window_pattern(sliding)


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


def _longrope_factors(config: TextConfig) -> dict[str, FloatArray]:
    """llama.cpp takes the long ones by the context that it is opened with; where none is longer, both are the short."""
    rope = config.rope()
    if rope["rope_type"] != "longrope":
        return {}
    beyond = config.need("max_position_embeddings") > original_length(dict(config.values), rope)
    return {
        "rope_factors_long.weight": np.asarray(rope["long_factor" if beyond else "short_factor"], dtype=np.float32),
        "rope_factors_short.weight": np.asarray(rope["short_factor"], dtype=np.float32),
    }


def _llama_factors(config: TextConfig) -> dict[str, FloatArray]:
    return _llama3_factors(config) | _longrope_factors(config)


_YARN = {"beta_fast": 32, "beta_slow": 1, "truncate": True}
"""What llama.cpp computes with for these architectures, whatever the file says."""


def check_backbone(config: TextConfig) -> Backbone:
    """The architecture of a language model that llama.cpp computes as transformers does.

    Raises:
        UnsupportedArchitectureError: There is none.
        CheckpointError: A field has a value for which they differ.
    """
    backbone = find_backbone(config)
    backbone.check(config)
    _check_rotary(config, backbone)
    return backbone


def _check_rotary(config: TextConfig, backbone: Backbone) -> None:
    for layers, rope in by_layer(dict(config.values)).items():
        known = ("default",) if layers == "sliding_attention" else backbone.rotary
        place = ".".join(part for part in (FIELD, layers) if part)
        if rope["rope_type"] not in known:
            reason = f"is '{rope['rope_type']}', which llama.cpp does not do for {backbone.arch}; use `format='onnx'`"
            raise CheckpointError("config.json", f"{place}.rope_type", reason)
        for name, fixed in _YARN.items():
            if rope["rope_type"] == "yarn" and (rope[name] if rope.get(name) is not None else fixed) != fixed:
                reason = f"is {rope[name]!r}, but llama.cpp computes with {fixed!r}; use `format='onnx'`"
                raise CheckpointError("config.json", f"{place}.{name}", reason)


BACKBONES = (
    Backbone(
        arch="llama",
        model_types=("llama", "mistral"),
        keys=(_shape, _head_width, _rotary, _long_context, _vocabulary_size, _rotary_width),
        interleaved_rotary=True,
        rotary=(*_EVERYWHERE, "llama3", "longrope"),
        computed=_llama_factors,
    ),
    Backbone(arch="qwen2", model_types=("qwen2",), keys=(_shape, _head_width, _rotary)),
    Backbone(
        arch="qwen2vl",
        model_types=("qwen2_vl_text", "qwen2_5_vl_text"),
        keys=(_shape, _head_width, _rotary, _rotary_sections),
    ),
    Backbone(arch="qwen3", model_types=("qwen3",), keys=(_shape, _head_width, _rotary)),
    Backbone(
        arch="qwen3vl",
        model_types=("qwen3_vl_text",),
        keys=(_shape, _head_width, _rotary, _rotary_sections, _deepstack),
    ),
    Backbone(
        arch="qwen35",
        model_types=("qwen3_5_text",),
        keys=(_shape, _head_width, _rotary, _rotary_sections, _rotary_width, hybrid.write_states),
        rotary=("default",),
        stored_name=hybrid.stored_name,
        stored_shape=hybrid.stored_shape,
        stored_values=hybrid.stored_values,
        check=hybrid.check_states,
    ),
    Backbone(arch="phi2", model_types=("phi",), keys=(_phi2, _rotary, _rotary_width)),
    Backbone(
        arch="phi3",
        model_types=("phi3",),
        keys=(_shape, _rotary, _rotary_width, _phi3),
        rotary=("default", "longrope"),
        computed=_longrope_factors,
    ),
    Backbone(
        arch="gemma",
        model_types=("gemma",),
        keys=(_shape, _head_width, _rotary),
        norm_shift=1.0,
        check=_check_gemma,
    ),
    Backbone(
        arch="gemma3",
        model_types=("gemma3_text",),
        keys=(_shape, _head_width, _rotary, _gemma3),
        rotary=("default", "linear"),
        norm_shift=1.0,
    ),
)
"""Architectures this release writes."""


def find_backbone(config: TextConfig) -> Backbone:
    """The architecture of a language model.

    Raises:
        UnsupportedArchitectureError: when none fits; the message lists the known ones.
    """
    model_type = config.need("model_type")
    for backbone in BACKBONES:
        if model_type in backbone.model_types:
            return backbone
    raise UnsupportedArchitectureError(model_type, (name for backbone in BACKBONES for name in backbone.model_types))


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
