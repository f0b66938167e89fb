"""A plain language model's config.json, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_mllm_export.errors import CheckpointError
from edge_mllm_export.families.rotary import OLDER_NAMES


@dataclass(frozen=True)
class TextConfig:
    """config.json of a plain causal language model; asking for an absent field is a clear error."""

    values: Mapping[str, Any]

    def need(self, name: str) -> Any:
        """The value of a field that must be there."""
        value = self.values.get(name)
        if value is None:
            raise CheckpointError("config.json", name, "is missing")
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field, ``default`` where it is absent or null."""
        value = self.values.get(name)
        return default if value is None else value

    def check_activation(self, computed: str) -> None:
        """Refuse another activation than the one that llama.cpp computes for this architecture."""
        found = self.get("hidden_act", computed)
        if found != computed:
            raise CheckpointError("config.json", "hidden_act", f"is {found!r}, but llama.cpp computes {computed} here")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return int(self.get("head_dim") or self.need("hidden_size") // self.need("num_attention_heads"))

    @property
    def kv_heads(self) -> int:
        """Number of key-value heads."""
        return int(self.get("num_key_value_heads", self.need("num_attention_heads")))

    def rope(self, layers: str = "full_attention") -> dict[str, Any]:
        """Rotary parameters of one kind of layer, from transformers' present and older spellings."""
        given = self.get("rope_parameters") or self.get("rope_scaling") or {}
        nested = layers in given or "full_attention" in given
        flat: dict[str, Any] = dict(given.get(layers, {}) if nested else given)
        older = "rope_local_base_freq" if layers == "sliding_attention" else "rope_theta"
        if layers == "sliding_attention" and not nested:
            flat = {}
        if self.get(older) is not None:
            flat.setdefault("rope_theta", self.get(older))
        flat.setdefault("rope_type", flat.get("type", "default"))
        flat["rope_type"] = OLDER_NAMES.get(flat["rope_type"], flat["rope_type"])
        return flat
