"""Sizes of a tower and a decoder, and the operations and bytes that follow from them.

An operation is a multiplication or an addition: a matrix product of [m, k] by [k, n] has 2 m k n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_mllm.errors import SettingError
from edge_mllm.typed_json import LATER

STATE_COPIES = 6
"""Most copies of a state at once: what a run reads and what it writes, and four places to go back to."""


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """A pre-norm transformer with gated feed-forward layers and grouped key/value heads."""

    n_embd: int
    n_layer: int
    n_head: int
    n_kv_head: int
    head_dim: int
    n_ff: int
    n_vocab: int
    tied: bool
    """The output head is the token embedding."""
    biases: int = 0
    """Bias values of all linear layers of one block."""
    gated: bool = False
    """Attention's output is gated by a matrix as large as that of the queries."""
    state_layers: int = 0
    """Layers among ``n_layer`` that keep a state in attention's place."""
    state_weights: int = 0
    """Weights of the matrices in attention's place of such a layer."""
    state_values: int = 0
    """Values of the state of such a layer."""

    @property
    def attention_layers(self) -> int:
        """Layers that keep keys and values."""
        return self.n_layer - self.state_layers

    @property
    def layer_weights(self) -> int:
        """Weights of the matrices of all layers."""
        attention = self.n_embd * self.head_dim * ((3 if self.gated else 2) * self.n_head + 2 * self.n_kv_head)
        feed_forward = self.n_layer * 3 * self.n_embd * self.n_ff
        return feed_forward + self.attention_layers * attention + self.state_layers * self.state_weights

    @property
    def head_weights(self) -> int:
        """Weights of the output head; also those of the token embedding."""
        return self.n_vocab * self.n_embd

    @property
    def parameters(self) -> int:
        """All parameters: matrices, biases, norms, embedding, head."""
        norms = self.n_embd * (2 * self.n_layer + 1)
        tables = self.head_weights * (1 if self.tied else 2)
        return self.layer_weights + self.n_layer * self.biases + norms + tables

    def linear_ops(self, tokens: int) -> float:
        """Operations with weights of ``tokens`` prompt tokens; logits of the last one only."""
        return 2.0 * tokens * self.layer_weights + 2.0 * self.head_weights

    def attention_scores(self, tokens: int, past: float = 0) -> float:
        """Pairs of query and key in all heads and layers; every token sees those before it and itself."""
        seen = tokens * past + tokens * (tokens + 1) / 2
        return float(self.attention_layers * self.n_head) * seen

    def residual_values(self, tokens: int) -> float:
        """Values of the residual stream that all layers read and write: norms, sums and quantising go over them."""
        return float(tokens * self.n_layer * self.n_embd)

    def cache_rows(self, tokens: float) -> float:
        """Keys of ``tokens`` tokens, of every head and layer that has its own; there are as many values."""
        return self.attention_layers * self.n_kv_head * tokens

    def kv_bytes(self, tokens: int, value_bytes: float = 2.0) -> float:
        """Bytes of keys and values of ``tokens`` tokens."""
        return 2.0 * self.head_dim * self.cache_rows(tokens) * value_bytes

    @property
    def state_bytes(self) -> int:
        """Bytes of the states of all layers, in float32 as both engines keep them, and of their copies."""
        return 4 * self.state_layers * self.state_values * STATE_COPIES


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """A vision transformer over the patches of one tile, and a projector over its output."""

    hidden: int
    n_layer: int
    n_head: int
    n_ff: int
    patches: int
    """Per tile."""
    patch_values: int
    """Values of one patch: 3 channels by its area in pixels."""
    tokens: int
    """Visual tokens per tile."""
    projector_weights: int
    """Weights of the projector's matrices; each is applied once a visual token."""
    windowed_layers: int = 0
    """Layers that attend within windows instead of the whole tile or picture."""
    window: int = 0
    """Patches of a window."""
    merged_layers: int = field(default=0, metadata=LATER)
    """Last layers, before which four patches are made one."""
    merging_weights: int = field(default=0, metadata=LATER)
    """Weights that this takes for each four."""

    @property
    def linear_ops(self) -> float:
        """Operations of the matrix products with weights, per tile."""
        block = 4 * self.hidden**2 + 2 * self.hidden * self.n_ff
        per_patch = (self.n_layer - self.merged_layers) * block + self.patch_values * self.hidden
        per_four = self.merged_layers * block + self.merging_weights
        per_token = self.tokens * self.projector_weights
        return 2.0 * self.patches * per_patch + 0.5 * self.patches * per_four + 2.0 * per_token

    @property
    def attention_scores(self) -> float:
        """Pairs of query and key in all heads and layers, per tile; windows are counted as full ones."""
        whole = (self.n_layer - self.windowed_layers - self.merged_layers) * self.patches
        within = self.windowed_layers * min(self.window, self.patches)
        merged = self.merged_layers * self.patches / 16
        return float(self.n_head * self.patches * (whole + within + merged))


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Both parts."""

    decoder: DecoderShape
    tower: TowerShape


def decoder_shape(config: Mapping[str, Any], *, tied: bool | None = None) -> DecoderShape:
    """Read a plain causal-LM config.json.

    Args:
        config: with the usual names (hidden_size, intermediate_size, num_hidden_layers, ...).
        tied: overrides ``tie_word_embeddings``, which a wrapper's configuration may set instead.

    Raises:
        SettingError: a size is missing.
    """
    heads = _size(config, "num_attention_heads")
    n_embd = _size(config, "hidden_size")
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or n_embd // heads
    return DecoderShape(
        n_embd=n_embd,
        n_layer=_size(config, "num_hidden_layers"),
        n_head=heads,
        n_kv_head=int(kv_heads),
        head_dim=int(head_dim),
        n_ff=_size(config, "intermediate_size"),
        n_vocab=_size(config, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)) if tied is None else tied,
        biases=int(head_dim) * (heads + 2 * int(kv_heads)) if config.get("attention_bias") else 0,
        **_states(config, n_embd),
    )


def _states(config: Mapping[str, Any], n_embd: int) -> dict[str, Any]:
    """What layers of gated delta nets have (Yang et al., arXiv 2412.06464), as transformers names their sizes."""
    count = list(config.get("layer_types") or ()).count("linear_attention")
    if not count or "linear_num_value_heads" not in config:
        return {}
    heads, keys = _size(config, "linear_num_value_heads"), _size(config, "linear_num_key_heads")
    key, value = _size(config, "linear_key_head_dim"), _size(config, "linear_value_head_dim")
    channels = 2 * keys * key + heads * value
    kernel = _size(config, "linear_conv_kernel_dim")
    return {
        "gated": True,
        "state_layers": count,
        "state_weights": n_embd * (channels + 2 * heads * value + 2 * heads) + channels * kernel,
        "state_values": heads * key * value + channels * (kernel - 1),
    }


def _size(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise SettingError(f"the configuration has no usable '{name}' ({value!r})")
    return value
