"""Gated delta nets as llama.cpp keeps them: tensors whose values or shapes are other ones than the checkpoint's.

The checkpoint has the heads of values in groups, one for each head of keys; llama.cpp repeats the heads of keys in
turn, so the heads of values are put in that order. Decay rates are stored as what they are in the formula, and norms
with the one that transformers adds to them (conversion/qwen.py of llama.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_mllm_export.errors import CheckpointError

if TYPE_CHECKING:
    import gguf

    from edge_mllm.arrays import FloatArray
    from edge_mllm_export.write.gguf.text_config import TextConfig

_BLOCK = ".linear_attn."


def write_states(writer: gguf.GGUFWriter, config: TextConfig) -> None:
    """Sizes of the states, and which layers keep them."""
    heads = config.need("linear_num_value_heads")
    writer.add_ssm_conv_kernel(config.need("linear_conv_kernel_dim"))
    writer.add_ssm_state_size(config.need("linear_key_head_dim"))
    writer.add_ssm_group_count(config.need("linear_num_key_heads"))
    writer.add_ssm_time_step_rank(heads)
    writer.add_ssm_inner_size(config.need("linear_value_head_dim") * heads)
    kinds = config.need("layer_types")
    writer.add_array(f"{writer.arch}.attention.recurrent_layers", [kind == "linear_attention" for kind in kinds])
    writer.add_full_attention_interval(kinds.index("full_attention") + 1)


def check_states(config: TextConfig) -> None:
    """llama.cpp has one width for heads of keys and of values."""
    keys, values = config.need("linear_key_head_dim"), config.need("linear_value_head_dim")
    if keys != values:
        reason = (
            f"is {values}, but llama.cpp computes with heads as wide as those of keys ({keys}); use `format='onnx'`"
        )
        raise CheckpointError("config.json", "linear_value_head_dim", reason)
    config.check_activation("silu")


def stored_name(name: str) -> str:
    """The name under which gguf-py's table knows a tensor."""
    return name.removesuffix(".dt_bias") + ".dt_proj.bias" if name.endswith(f"{_BLOCK}dt_bias") else name


def stored_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in the file: that of a convolution over time has no axis for its one input channel."""
    return (shape[0], shape[-1]) if name.endswith("conv1d.weight") else shape


def stored_values(config: TextConfig, name: str, values: FloatArray) -> FloatArray:
    """Values in the file.

    Args:
        config: Of the language model.
        name: In the plain causal LM.
        values: float32, as the checkpoint has them.
    """
    if name.endswith("norm.weight") and not name.endswith(f"{_BLOCK}norm.weight"):
        return values + np.float32(1)
    if _BLOCK not in name:
        return values
    if name.endswith("A_log"):
        import torch

        values = -torch.exp(torch.from_numpy(values)).numpy()  # numpy's exponential differs in the last bit
    values = values.reshape(stored_shape(name, values.shape))
    width, part = config.need("linear_value_head_dim"), name.partition(_BLOCK)[2].split(".")[0]
    if part in ("in_proj_qkv", "conv1d"):
        before = 2 * config.need("linear_num_key_heads") * config.need("linear_key_head_dim")
        return np.concatenate([values[:before], _in_turn(config, values[before:], width)])
    if part == "out_proj":
        return np.ascontiguousarray(_in_turn(config, values.T, width).T)
    if part == "in_proj_z":
        return _in_turn(config, values, width)
    return _in_turn(config, values, 1) if part in ("in_proj_a", "in_proj_b", "A_log", "dt_bias") else values


def _in_turn(config: TextConfig, values: FloatArray, width: int) -> FloatArray:
    """Heads of values [heads * width, ...] in the order in which heads of keys are repeated."""
    keys, heads = config.need("linear_num_key_heads"), config.need("linear_num_value_heads")
    split = values.reshape(keys, heads // keys, width, *values.shape[1:])
    return split.swapaxes(0, 1).reshape(values.shape)
