"""Language model architectures as llama.cpp names them: metadata keys, tensor names, and what changes on the way.

Tensor names come from gguf-py's own tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_mllm.arrays import FloatArray
from edge_mllm_export.errors import UnsupportedArchitectureError
from edge_mllm_export.write.gguf import hybrid
from edge_mllm_export.write.gguf.metadata import (
    check_gemma,
    write_deepstack,
    write_gemma3,
    write_head_width,
    write_phi2,
    write_phi3,
    write_shape,
    write_vocabulary_size,
)
from edge_mllm_export.write.gguf.rotary import (
    check_rotary,
    llama_factors,
    longrope_factors,
    write_long_context,
    write_rotary,
    write_rotary_sections,
    write_rotary_width,
)
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


def check_backbone(config: TextConfig) -> Backbone:
    """The architecture of a language model that llama.cpp computes as transformers does.

    Raises:
        UnsupportedArchitectureError: There is none.
        CheckpointError: A field has a value for which they differ.
    """
    backbone = find_backbone(config)
    backbone.check(config)
    check_rotary(config, backbone.arch, backbone.rotary)
    return backbone


BACKBONES = (
    Backbone(
        arch="llama",
        model_types=("llama", "mistral"),
        keys=(
            write_shape,
            write_head_width,
            write_rotary,
            write_long_context,
            write_vocabulary_size,
            write_rotary_width,
        ),
        interleaved_rotary=True,
        rotary=(*_EVERYWHERE, "llama3", "longrope"),
        computed=llama_factors,
    ),
    Backbone(arch="qwen2", model_types=("qwen2",), keys=(write_shape, write_head_width, write_rotary)),
    Backbone(
        arch="qwen2vl",
        model_types=("qwen2_vl_text", "qwen2_5_vl_text"),
        keys=(write_shape, write_head_width, write_rotary, write_rotary_sections),
    ),
    Backbone(arch="qwen3", model_types=("qwen3",), keys=(write_shape, write_head_width, write_rotary)),
    Backbone(
        arch="qwen3vl",
        model_types=("qwen3_vl_text",),
        keys=(write_shape, write_head_width, write_rotary, write_rotary_sections, write_deepstack),
    ),
    Backbone(
        arch="qwen35",
        model_types=("qwen3_5_text",),
        keys=(
            write_shape,
            write_head_width,
            write_rotary,
            write_rotary_sections,
            write_rotary_width,
            hybrid.write_states,
        ),
        rotary=("default",),
        stored_name=hybrid.stored_name,
        stored_shape=hybrid.stored_shape,
        stored_values=hybrid.stored_values,
        check=hybrid.check_states,
    ),
    Backbone(arch="phi2", model_types=("phi",), keys=(write_phi2, write_rotary, write_rotary_width)),
    Backbone(
        arch="phi3",
        model_types=("phi3",),
        keys=(write_shape, write_rotary, write_rotary_width, write_phi3),
        rotary=("default", "longrope"),
        computed=longrope_factors,
    ),
    Backbone(
        arch="gemma",
        model_types=("gemma",),
        keys=(write_shape, write_head_width, write_rotary),
        norm_shift=1.0,
        check=check_gemma,
    ),
    Backbone(
        arch="gemma3",
        model_types=("gemma3_text",),
        keys=(write_shape, write_head_width, write_rotary, write_gemma3),
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
