"""The float weights behind the ONNX decoder's quantised nodes, and a second quantisation of the 4-bit ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_mllm_export.errors import DecoderBuildError
from edge_mllm_quant.weights.nbits import refine_matmul, relative_error, symmetric_nodes

if TYPE_CHECKING:
    import onnx

    from edge_mllm.arrays import FloatArray
    from edge_mllm_quant.weights.activations import Moments
    from edge_mllm_quant.weights.nbits import NBitsNode

_LAYER = re.compile(r"/model/layers\.(\d+)/(attn|linear_attn|mlp)/(\w+)_proj/MatMul")
_HEAD = "/lm_head/MatMul"
_BLOCKS = {"attn": "self_attn", "linear_attn": "linear_attn", "mlp": "mlp"}
_PARTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("attn", "qkv"): ("q_proj", "k_proj", "v_proj"),
    **{("linear_attn", name): (f"in_proj_{name}",) for name in ("qkv", "z", "a", "b")},
}
"""The builder joins projections of one input into one matrix, and calls those of gated delta nets otherwise."""
_WAY_OUT = "use `format='gguf'`"
_LARGEST_ERROR = 0.5
"""Relative error of a node's old values against the weights; 4-bit rounding makes about 0.1, other weights above 1."""


def refine_decoder(model: onnx.ModelProto, text_dir: Path, moments: Mapping[str, Moments]) -> tuple[str, ...]:
    """Choose scales and codes of the 4-bit matrices again, in place; return the nodes that changed.

    Args:
        model: As onnxruntime-genai's builder wrote it, tensors in memory.
        text_dir: The plain causal LM it was made from.
        moments: Layer name in the plain causal LM -> second moments of its input.

    Raises:
        DecoderBuildError: A node does not hold the weights that its name says.
    """
    done = []
    for node in symmetric_nodes(model):
        layers = layers_behind(node.name)
        seen = moments.get(layers[0]) if layers else None
        if seen is None or seen.products is None:
            continue
        refine_matmul(node, float_weights(node, text_dir, layers, "use `calibration=False`"), seen)
        done.append(node.name)
    return tuple(done)


def check_weights(model: onnx.ModelProto, text_dir: Path) -> None:
    """Compare one matrix with the checkpoint's: what the builder does not find, it leaves at random without a word.

    Of a model whose matrices all have other names than the graph's, nothing is compared.

    Args:
        model: As onnxruntime-genai's builder wrote it, tensors in memory.
        text_dir: The plain causal LM it was made from.

    Raises:
        DecoderBuildError: The graph holds other weights.
    """
    from onnx import numpy_helper

    stored = _stored(text_dir)

    def known(node: str) -> bool:
        layers = layers_behind(node) if _LAYER.match(node) else ()
        return bool(layers) and all(f"{layer}.weight" in stored for layer in layers)

    for quantised in symmetric_nodes(model, bits=(4, 8)):
        if known(quantised.name):
            float_weights(quantised, text_dir, layers_behind(quantised.name), _WAY_OUT)
            return
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and known(node.name) and node.input[1] in tensors:
            expected = _read_weights(text_dir, layers_behind(node.name)).T
            values = numpy_helper.to_array(tensors[node.input[1]])
            if values.shape != expected.shape or not np.allclose(values, expected, rtol=1e-2, atol=1e-5):
                raise DecoderBuildError(f"the node {node.name} does not hold the checkpoint's weights; {_WAY_OUT}")
            return


def layers_behind(node: str) -> tuple[str, ...]:
    """Layer names in the plain causal LM whose rows make up a node's matrix; none where the name says nothing."""
    if node.startswith(_HEAD):
        return ("lm_head",)
    match = _LAYER.match(node)
    if match is None:
        return ()
    number, block, name = match.groups()
    parts = _PARTS.get((block, name), (f"{name}_proj",))
    return tuple(f"model.layers.{number}.{_BLOCKS[block]}.{part}" for part in parts)


def float_weights(node: NBitsNode, text_dir: Path, layers: tuple[str, ...], way_out: str) -> FloatArray:
    """The checkpoint's own weights of a node, float32 [rows, columns].

    Args:
        node: With its tensors in memory.
        text_dir: The plain causal LM it was made from.
        layers: From :func:`layers_behind`.
        way_out: What to do if that is wrong, for the message.

    Raises:
        DecoderBuildError: The node does not hold the weights that its name says.
    """
    weights = _read_weights(text_dir, layers)
    if weights.shape != node.shape or relative_error(node, weights) > _LARGEST_ERROR:
        raise DecoderBuildError(f"the node {node.name} does not hold {', '.join(layers)}; {way_out}")
    return weights


def _stored(text_dir: Path) -> set[str]:
    """Names of the tensors of a plain causal LM."""
    from safetensors import safe_open

    with safe_open(text_dir / "model.safetensors", framework="pt") as tensors:
        return set(tensors.keys())


def _read_weights(text_dir: Path, layers: tuple[str, ...]) -> FloatArray:
    import torch
    from safetensors import safe_open

    with safe_open(text_dir / "model.safetensors", framework="pt") as tensors:
        stored = set(tensors.keys())
        names = [f"{layer}.weight" for layer in layers]
        if names == ["lm_head.weight"] and names[0] not in stored:  # tied
            names = ["model.embed_tokens.weight"]
        return np.concatenate([tensors.get_tensor(name).to(torch.float32).numpy() for name in names if name in stored])
