"""What a GGUF file must be for llama.cpp to compute with it: it ends the process where a check of its own fails.

llama.cpp refuses much by itself, with a message. Here is what it does not: numbers that are none, tensors without
values, and vision towers whose sizes contradict each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from edge_mllm.bundle.gguf_header import GGUFHeader, GGUFTensor
from edge_mllm.errors import BundleError

_UINT32, _INT32, _INTEGERS = 4, 5, frozenset((0, 1, 2, 3, 4, 5, 10, 11))
"""Values of ggml's enum gguf_type."""
_SIGNED = re.compile(r"clip\.[a-z]+_version")
"""Keys that libmtmd reads as a number with a sign."""
_FLOAT32 = 6
_MOST_AXES, _LARGEST_AXIS = 4, 1 << 32
_MOST_LAYERS = 512
"""LLAMA_MAX_LAYERS of llama.cpp."""
_WIDTH, _PATCH, _IMAGE = "clip.vision.embedding_length", "clip.vision.patch_size", "clip.vision.image_size"
_HEADS = "clip.vision.attention.head_count"
_SCALE, _MERGE = "clip.vision.projector.scale_factor", "clip.vision.spatial_merge_size"
_KERNEL = "v.patch_embd.weight"
_INPUT = re.compile(r"v\.blk\.\d+\.(attn_(q|k|v|qkv)|ln1|ln2)\.weight")
_OUTPUT = re.compile(r"v\.blk\.\d+\.attn_out\.weight")
_QUERY = re.compile(r"(v\.blk\.\d+\.attn_)[kv](\.weight)")
_UP = re.compile(r"(v\.blk\.\d+\.ffn_)up(\.weight)")


def check_values(file: Path, header: GGUFHeader) -> None:
    """Refuse numbers and tensors that no model has.

    Raises:
        BundleError: There is one.
    """
    for key, value in header.metadata.items():
        if isinstance(value, float) and (not math.isfinite(value) or ("epsilon" in key and not 0 <= value < 1)):
            raise BundleError(file, f"its metadata say {key} is {value:g}")
        if key.endswith(".block_count") and not (isinstance(value, int) and 0 <= value <= _MOST_LAYERS):
            raise BundleError(file, f"its metadata say {key} is {value}, llama.cpp has room for {_MOST_LAYERS}")
    for tensor in header.tensors:
        if not 1 <= len(tensor.shape) <= _MOST_AXES or any(not 0 < side < _LARGEST_AXIS for side in tensor.shape):
            raise BundleError(file, f"its tensor {tensor.name} has the shape {list(tensor.shape)}")


def check_tower(file: Path, header: GGUFHeader) -> None:
    """Refuse a vision tower whose sizes contradict each other, or are stored as libmtmd does not read them.

    Raises:
        BundleError: There is such a size.
    """
    check_values(file, header)
    for key, kind in header.kinds.items():
        if key.startswith("clip.") and kind in _INTEGERS and kind != (_INT32 if _SIGNED.fullmatch(key) else _UINT32):
            raise BundleError(file, f"its metadata store {key} in another type of number than libmtmd reads")
    for key in ("clip.vision.image_mean", "clip.vision.image_std"):
        if key in header.lengths and (header.elements[key], header.lengths[key]) != (_FLOAT32, 3):
            raise BundleError(file, f"its metadata say {key} is something else than three numbers")
    sizes = {key: header.metadata.get(key) for key in (_WIDTH, _PATCH, _IMAGE)}
    numbers = {key: value for key, value in sizes.items() if isinstance(value, int) and not isinstance(value, bool)}
    for key, value in numbers.items():
        if not 0 < value < 1 << 20:
            raise BundleError(file, f"its metadata say {key} is {value}")
    if numbers.get(_IMAGE, 1 << 20) < numbers.get(_PATCH, 1):
        raise BundleError(file, "its metadata say that a picture is smaller than a patch")
    _check_counts(file, header.metadata, numbers)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    kernel = tensors.get(_KERNEL)
    if kernel is not None and len(kernel.shape) == _MOST_AXES and {*kernel.shape[:2]} != {numbers.get(_PATCH)}:
        raise BundleError(file, f"its tensor {_KERNEL} has the shape {list(kernel.shape)}, not that of its patches")
    if _WIDTH in numbers:
        _check_blocks(file, tensors, numbers[_WIDTH])


def _check_counts(file: Path, metadata: Mapping[str, object], numbers: Mapping[str, int]) -> None:
    """Heads divide the width; what joins patches divides the patches of a side."""
    side = numbers[_IMAGE] // numbers[_PATCH] if {_IMAGE, _PATCH} <= numbers.keys() else None
    for key, whole in ((_HEADS, numbers.get(_WIDTH)), (_SCALE, side), (_MERGE, side)):
        value = metadata.get(key)
        if not isinstance(value, int) or whole is None:
            continue
        if not 0 < value <= whole or (key != _MERGE and whole % value):
            raise BundleError(file, f"its metadata say {key} is {value}, which does not divide {whole}")


def _check_blocks(file: Path, tensors: Mapping[str, GGUFTensor], width: int) -> None:
    """Matrices of blocks take and give rows of the tower's width."""
    for name, tensor in tensors.items():
        wrong = bool(_INPUT.fullmatch(name)) and tensor.shape[0] != width
        wrong |= bool(_OUTPUT.fullmatch(name)) and tensor.shape[-1] != width
        bias = tensors.get(f"{name.removesuffix('weight')}bias") if name.endswith(".weight") else None
        wrong |= bias is not None and len(tensor.shape) == 2 and bias.shape != tensor.shape[1:]
        query = tensors.get(_QUERY.sub(r"\1q\2", name)) if _QUERY.fullmatch(name) else None
        wrong |= query is not None and query.shape != tensor.shape
        up = _UP.fullmatch(name)
        down = tensors.get(f"{up[1]}down{up[2]}") if up else None
        if down is not None:  # older files call them the other way round
            shapes = sorted((tensor.shape, down.shape), key=lambda shape: shape[0] != width)
            wrong |= shapes[0][0] != width or shapes[1] != shapes[0][::-1]
        if wrong:
            raise BundleError(file, f"its tensor {name} has the shape {list(tensor.shape)}, its width is {width}")
