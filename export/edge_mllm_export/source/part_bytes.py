"""How many bytes the weights of each part take in each recipe, from the shapes of tensors alone.

The rules are those of the writers: llama.cpp's quantiser (``llama_tensor_get_type`` in src/llama-quant.cpp) for GGUF,
onnxruntime-genai's builder for the ONNX decoder, ONNX Runtime's dynamic quantisation for the tower. Tests compare them
with files. Names, graphs and the vocabulary come on top: from some hundred kilobytes to a few megabytes; and in an int8
tower, where calibration finds that it helps, a vector of factors before products that no layer norm feeds
(:mod:`edge_mllm_quant.tower.migration`), which no plan can know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from math import prod

from edge_mllm.costs.facts import PartSize
from edge_mllm_quant.recipes.override import PROJECTOR_PATTERNS
from edge_mllm_quant.recipes.recipe import DEFAULTS, Component, find_recipe, recipe_names

Shapes = Mapping[str, tuple[int, ...]]

_BLOCK_BYTES = {
    "F32": (1, 4),
    "F16": (1, 2),
    "Q8_0": (32, 34),
    "Q4_0": (32, 18),
    "IQ4_NL": (32, 18),
    "Q5_0": (32, 22),
    "Q4_K": (256, 144),
    "Q6_K": (256, 210),
}
"""GGML type -> values and bytes of a block (ggml-common.h)."""
_FALLBACK = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}
"""For rows that 256 does not divide (tensor_type_fallback)."""
_ALIGNMENT = 32
_EMBEDDINGS, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_LAYER = re.compile(r"\.layers\.(\d+)\.")
_NPY_HEADER = 128
_PRODUCT = re.compile(r"model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)_proj\.weight")
_INTO_CACHE = ("q", "k", "v")
"""Of the last layer: queries are in one matrix with keys and values."""
_MIXED = ("q_proj", "k_proj", "v_proj", "down_proj")


def decoder_sizes(shapes: Shapes, *, tied: bool, rotary_values: int) -> dict[str, list[PartSize]]:
    """Engine -> every recipe of it; the default ONNX decoder once more with every recipe of prompt weights.

    Args:
        shapes: Tensors of the plain causal LM.
        tied: Whether the head is the embedding table.
        rotary_values: Cosines and sines that the ONNX graph stores.
    """
    gguf = [_gguf_size(recipe, _gguf_types(shapes, recipe, tied=tied), shapes) for recipe in recipe_names("gguf")]
    onnx = [_onnx_size(recipe, shapes, rotary_values) for recipe in recipe_names("onnx")]
    (usual,) = (size for size in onnx if size.default)
    whole = usual.weight_bytes + _prompt_bytes(shapes)
    prompting = [replace(usual, weight_bytes=whole, prompt=recipe, default=False) for recipe in recipe_names("prompt")]
    return {"gguf": gguf, "onnx": [*onnx, *prompting]}


def _prompt_bytes(shapes: Shapes) -> int:
    """Of int8 prompt weights: a byte a value and a step a row, of what keys and values depend on."""
    found = {name: match for name in shapes if (match := _PRODUCT.fullmatch(name))}
    last = str(max((int(match[1]) for match in found.values()), default=0))
    return sum(
        prod(shapes[name]) + 4 * shapes[name][0]
        for name, match in found.items()
        if match[1] != last or match[2] in _INTO_CACHE
    )


def tower_sizes(shapes: Shapes) -> list[PartSize]:
    """Every recipe of the tower, projector included."""
    return [
        PartSize(
            recipe=recipe,
            weight_bytes=sum(_tower_bytes(name, shape, recipe) for name, shape in shapes.items()),
            default=_is_default("vision", recipe),
        )
        for recipe in recipe_names("vision")
    ]


def _is_default(component: Component, recipe: str) -> bool:
    return DEFAULTS.get(component) == recipe


def _gguf_size(recipe: str, types: Mapping[str, str], shapes: Shapes) -> PartSize:
    sizes = {name: _aligned(_bytes_of(kind, shapes[name])) for name, kind in types.items()}
    total = sum(sizes.values())
    looked_up = sizes[_EMBEDDINGS] if _HEAD in types else 0
    return PartSize(
        recipe=recipe, weight_bytes=total, token_bytes=total - looked_up, default=_is_default("gguf", recipe)
    )


def _gguf_types(shapes: Shapes, recipe: str, *, tied: bool) -> dict[str, str]:
    """Tensor -> the type that llama.cpp stores it in."""
    layers = 1 + max((int(found[1]) for name in shapes if (found := _LAYER.search(name))), default=0)
    types = {}
    for name, shape in shapes.items():
        if tied and name == _HEAD:
            continue
        if len(shape) < 2 or name.endswith("norm.weight"):
            types[name] = "F32"
        elif recipe in ("f32", "f16"):
            types[name] = recipe.upper()
        else:
            wanted = _mixture(name, recipe, layers, tied=tied)
            divides = shape[-1] % _BLOCK_BYTES[wanted][0] == 0
            types[name] = wanted if divides else _FALLBACK.get(wanted, "F16")
    return types


def _mixture(name: str, recipe: str, layers: int, *, tied: bool) -> str:
    """llama.cpp's choice for one matrix of a dense model."""
    if recipe == "q8_0":
        return "Q8_0"
    if name == _HEAD or (tied and name == _EMBEDDINGS):
        return (find_recipe("gguf", recipe).head or "q6_k").upper()
    if recipe != "q4_k_m":
        return find_recipe("gguf", recipe).base.upper()
    layer = _LAYER.search(name)
    generous = (".v_proj." in name or ".down_proj." in name) and layer is not None
    return "Q6_K" if generous and layer is not None and _more_bits(int(layer[1]), layers) else "Q4_K"


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _bytes_of(kind: str, shape: tuple[int, ...]) -> int:
    values, size = _BLOCK_BYTES[kind]
    return prod(shape) // values * size


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _onnx_size(recipe: str, shapes: Shapes, rotary_values: int) -> PartSize:
    """Graph constants and the table of embeddings, which is read one row at a time."""
    head = shapes.get(_HEAD, shapes[_EMBEDDINGS])
    matrices = {name: shape for name, shape in shapes.items() if name != _EMBEDDINGS} | {_HEAD: head}
    layers = 1 + max((int(found[1]) for name in shapes if (found := _LAYER.search(name))), default=0)
    block = find_recipe("onnx", recipe).block
    constants = sum(_onnx_bytes(shape, _onnx_bits(name, recipe, layers), block) for name, shape in matrices.items())
    width = 4 if recipe == "f32" else 2
    table = prod(shapes[_EMBEDDINGS]) * width + _NPY_HEADER
    total = constants + 4 * rotary_values + table
    return PartSize(recipe=recipe, weight_bytes=total, token_bytes=constants, default=_is_default("onnx", recipe))


def _onnx_bits(name: str, recipe: str, layers: int) -> int:
    """Bits of one matrix; onnxruntime-genai's ``mixed_layers`` are the layers of llama.cpp's mixture."""
    if recipe != "int4_mixed":
        return {"f32": 32, "int8_b32": 8}.get(recipe, 4)
    layer = _LAYER.search(name)
    generous = layer is not None and _more_bits(int(layer[1]), layers)
    return 8 if name == _HEAD or (generous and name.split(".")[-2] in _MIXED) else 4


def _onnx_bytes(shape: tuple[int, ...], bits: int, block: int) -> int:
    if len(shape) < 2 or bits == 32:
        return 4 * prod(shape)
    rows, blocks = shape[0], -(-shape[1] // block)
    return rows * blocks * (block * bits // 8 + 2)


def _tower_bytes(name: str, shape: tuple[int, ...], recipe: str) -> int:
    """One tensor: matrices by the recipe, the projector's with more bits, everything else as floats."""
    if len(shape) == 5:  # a kernel over frames of packed patches, which the graph has as a product
        shape = (shape[0], prod(shape[1:]))
    values = prod(shape)
    if recipe == "fp32":
        return 4 * values
    matrix = len(shape) == 2 and not any(word in name for word in _LOOKED_UP)
    projector = matrix and any(fnmatch(name, pattern) for pattern in PROJECTOR_PATTERNS)
    if recipe in ("int8", "int8_static"):
        if not matrix:
            return 4 * values
        channel = 5  # a step and a zero point
        return 2 * values if projector else values + channel * shape[0]
    if recipe == "int4" and matrix:
        blocks = shape[0] * -(-shape[1] // _VISION_BLOCK)
        return blocks * (_VISION_BLOCK if projector else _VISION_BLOCK // 2) + _half(blocks)
    return _half(values)


def _half(values: int) -> int:
    """Bytes of float values that are stored in half precision where they are many."""
    return (2 if values >= _HALF_FROM else 4) * values


_LOOKED_UP = ("embedding", ".pos_embed.")
"""In the names of tables: no product multiplies with them, so that they are not rounded to integers."""
_HALF_FROM = 1024
"""Values from which a tensor is stored in half precision (:mod:`edge_mllm_quant.tower.tower`)."""
_VISION_BLOCK = 32
