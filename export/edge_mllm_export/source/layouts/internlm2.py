"""InternLM2's language model under Llama's names: the same arithmetic with query, key and value in one matrix.

Source: the layout that the InternLM repository's tools/convert2llama.py reads (Apache-2.0). None of its code is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm_export.errors import CheckpointError

if TYPE_CHECKING:
    import torch

ARCHITECTURE = "InternLM2ForCausalLM"
_PACKED = ".attention.wqkv."
_NAMES = {
    "model.tok_embeddings.": "model.embed_tokens.",
    "output.": "lm_head.",
    ".attention.wo.": ".self_attn.o_proj.",
    ".feed_forward.w1.": ".mlp.gate_proj.",
    ".feed_forward.w3.": ".mlp.up_proj.",
    ".feed_forward.w2.": ".mlp.down_proj.",
    ".attention_norm.": ".input_layernorm.",
    ".ffn_norm.": ".post_attention_layernorm.",
}
_SCALINGS = ("linear", "dynamic")


def llama_config(file: Path, text: dict[str, Any]) -> dict[str, Any]:
    """An InternLM2 configuration with Llama's names.

    ``rope_scaling`` of type "dynamic" changes nothing up to ``max_position_embeddings`` and is left out: the context
    of the exported model ends there.

    Raises:
        CheckpointError: Sizes do not fit each other, or positions are numbered in another way.
    """
    section = "llm_config."
    if text.get("rope_pos_id_version", "default") != "default":
        raise CheckpointError(file, section + "rope_pos_id_version", "is not 'default', as no released model has it")
    fields = dict(text)
    fields["attention_bias"] = bool(fields.pop("bias", True))
    scaling = fields.pop("rope_scaling", None)
    if scaling is not None:
        kind = scaling.get("type") if isinstance(scaling, dict) else None
        if kind not in _SCALINGS:
            raise CheckpointError(file, section + "rope_scaling", f"is {scaling!r}, known: {', '.join(_SCALINGS)}")
        if kind == "linear":
            fields["rope_scaling"] = {"rope_type": "linear", "factor": scaling.get("factor")}
    hidden, heads, groups = (_whole(file, text, name) for name in _SIZES)
    if heads % groups or hidden % heads:
        reason = f"is {heads}, which does not fit hidden_size {hidden} and num_key_value_heads {groups}"
        raise CheckpointError(file, section + "num_attention_heads", reason)
    return fields


_SIZES = ("hidden_size", "num_attention_heads", "num_key_value_heads")


def _whole(file: Path, text: dict[str, Any], name: str) -> int:
    value = text.get(name, text.get("num_attention_heads") if name == "num_key_value_heads" else None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(file, f"llm_config.{name}", f"is {value!r}, expected a whole number above 0")
    return value


def llama_tensors(name: str, tensor: torch.Tensor, text: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Llama's names and values of one tensor; the packed matrix becomes three.

    ``wqkv`` is [groups * (queries + 2) * head width, hidden]: for every key-value head its queries, then its key, then
    its value.

    Args:
        name: As in InternLM2's own model, ``model.layers.0.attention.wqkv.weight`` for example.
        tensor: Its values.
        text: InternLM2's configuration, checked by :func:`llama_config`.

    Raises:
        CheckpointError: A packed matrix has another number of rows than the configuration says.
    """
    if _PACKED not in name:
        for old, new in _NAMES.items():
            if name.startswith(old) or (old.startswith(".") and old in name):
                name = name.replace(old, new, 1)
                break
        yield name, tensor
        return
    groups = int(text.get("num_key_value_heads") or text["num_attention_heads"])
    queries, width = text["num_attention_heads"] // groups, text["hidden_size"] // text["num_attention_heads"]
    if tensor.shape[0] != groups * (queries + 2) * width:
        reason = f"has {tensor.shape[0]} rows, expected {groups * (queries + 2) * width}"
        raise CheckpointError("model.safetensors", name, reason)
    packed = tensor.reshape(groups, queries + 2, width, *tensor.shape[1:])
    parts = {"q": packed[:, :queries], "k": packed[:, queries], "v": packed[:, queries + 1]}
    for part, values in parts.items():
        target = name.replace(_PACKED, f".self_attn.{part}_proj.")
        yield target, values.reshape(-1, *tensor.shape[1:]).clone()
