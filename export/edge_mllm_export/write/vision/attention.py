"""How a traced tower writes its attention.

``onnx`` is the standard Attention operator of opset 23. ``mha`` is ONNX Runtime's own MultiHeadAttention, which takes
[tiles, tokens, width] as the linear layers leave it and needs no transposed copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch

Attention = Literal["onnx", "mha"]
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
_NAME = "edge_mllm_mha"


def use_attention(tower: torch.nn.Module, attention: Attention) -> None:
    """Choose the operator for every transformers attention module below ``tower``."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _multi_head_attention)
    for module in tower.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            config._attn_implementation = _NAME if attention == "mha" else "sdpa"  # type: ignore[union-attr]


def _multi_head_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in both directions: [tiles, heads, tokens, head_dim] in, [tiles, tokens, heads, head_dim] out.

    Queries may be of other tokens than keys and values.
    ``attention_mask`` is bool [tiles, 1, 1, tokens]: which tokens of a tile are there; None where all are.
    """
    import torch

    tiles, heads, tokens, width = query.shape
    rows: list[torch.Tensor | None] = [
        states.transpose(1, 2).reshape(tiles, states.shape[2], heads * width) for states in (query, key, value)
    ]
    if attention_mask is not None:
        rows += [None, attention_mask[:, 0, 0].to(torch.int32)]  # no bias, then the padding of keys
    out = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        rows,
        attrs={"num_heads": heads, "scale": float(scaling)},
        dtype=query.dtype,
        shape=(tiles, tokens, heads * width),
        version=1,
    )
    return out.reshape(tiles, tokens, heads, width), None
