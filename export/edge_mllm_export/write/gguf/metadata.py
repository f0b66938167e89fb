"""Metadata that llama.cpp's loaders read of a language model: sizes, norms, activations, windows.

Keys and conventions are those of the GGUF specification (ggml/docs/gguf.md) as llama.cpp's loader reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.text_config import DEEPSTACK
from edge_mllm_export.write.gguf.rotary import write_original_context

if TYPE_CHECKING:
    import gguf

    from edge_mllm_export.write.gguf.text_config import TextConfig


def write_shape(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """Sizes and the epsilon of RMS norms."""
    _sizes(writer, config)
    writer.add_layer_norm_rms_eps(config.need("rms_norm_eps"))


def _sizes(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    writer.add_block_count(config.need("num_hidden_layers"))
    writer.add_context_length(config.need("max_position_embeddings"))
    writer.add_embedding_length(config.need("hidden_size"))
    writer.add_feed_forward_length(config.need("intermediate_size"))
    writer.add_head_count(config.need("num_attention_heads"))
    writer.add_head_count_kv(config.kv_heads)


def write_head_width(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """The width of a head, where the configuration has one of its own."""
    if config.get("head_dim") is not None:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)


def write_vocabulary_size(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """How many tokens there are."""
    writer.add_vocab_size(config.need("vocab_size"))


def write_deepstack(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """How many layers take visual embeddings of their own."""
    writer.add_num_deepstack_layers(config.get(DEEPSTACK, 0))


def write_phi2(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """Sizes and the epsilon of layer norms; refuses another activation than llama.cpp computes."""
    _sizes(writer, config)
    writer.add_layer_norm_eps(config.need("layer_norm_eps"))
    config.check_activation("gelu_new")


def write_phi3(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """The context in training and the sliding window."""
    write_original_context(writer, config)
    writer.add_sliding_window(config.get("sliding_window", 0))


def check_gemma(config: TextConfig) -> None:
    """Refuse an output head of its own, and another activation than llama.cpp computes."""
    if not config.get("tie_word_embeddings", True):
        reason = "is false, but llama.cpp takes the embedding table for this model's output head"
        raise CheckpointError("config.json", "tie_word_embeddings", reason)
    config.check_activation("gelu_pytorch_tanh")


def write_gemma3(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """The sliding layers and the cap on logits; refuses what llama.cpp computes otherwise."""
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
