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
_TABLE, _ROWS = "v.position_embd.weight", 70 * 70
"""Rows that libmtmd takes positions of slices from, whatever the table has."""
_QUERIES, _QUERY_NUMBER = "resampler.query", re.compile(r"clip\.[a-z]+_query_num")
_SIXTY_FOUR, _HEAD = frozenset((3, 4, 5, 6, 100045)), 128
"""Versions of resamplers that have 64 queries where no key says it (others 96), and the width of their heads."""
_BETWEEN, _MERGES = "clip.vision.wa_layer_indexes", (2, 4)
"""Key of towers that make patches one between layers, and the sides of squares of patches that they know."""
_RESAMPLER = {
    r"resampler\.query": "dq",
    r"resampler\.kv\.weight": "wd",
    r"resampler\.(proj|attn\.(q|k|v|out))\.weight": "dd",
    r"resampler\.(attn\.(q|k|v|out)\.bias|ln_(q|kv|post)\.(weight|bias))": "d",
}
"""Names of tensors -> one letter for each axis: ``w`` the tower's width, ``f`` four times that."""
_MERGER = {
    r"v\.vit_merger\.(ln1\.(weight|bias)|attn_(q|k|v|out)\.bias|ds_ffn_down\.bias)": "w",
    r"v\.vit_merger\.attn_(q|k|v|out)\.weight": "ww",
    r"(v\.vit_merger\.ds_ln|mm\.input_norm)\.(weight|bias)": "f",
    r"v\.vit_merger\.ds_ffn_up\.weight": "fm",
    r"v\.vit_merger\.ds_ffn_up\.bias": "m",
    r"v\.vit_merger\.ds_ffn_down\.weight": "mw",
    r"mm\.up\.weight": "fn",
    r"mm\.up\.bias": "n",
    r"mm\.down\.weight": "nd",
    r"mm\.down\.bias": "d",
}


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
        _check_slices(file, header, tensors, numbers[_WIDTH])


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


def _check_slices(file: Path, header: GGUFHeader, tensors: Mapping[str, GGUFTensor], width: int) -> None:
    """Projectors of towers that see slices of any shape: resamplers, and those that merge patches between layers."""
    queries, scale = tensors.get(_QUERIES), header.metadata.get(_SCALE)
    merges = _BETWEEN in header.lengths and scale is not None
    if queries is None and not merges:
        return
    if merges and scale not in _MERGES:
        raise BundleError(file, f"its metadata say {_SCALE} is {scale}, libmtmd knows {_MERGES[0]} and {_MERGES[1]}")
    table = tensors.get(_TABLE)
    if table is not None and (len(table.shape) != 2 or table.shape[0] != width or table.shape[1] < _ROWS):
        raise BundleError(file, f"its tensor {_TABLE} has the shape {list(table.shape)}, expected [{width}, {_ROWS}]")
    sizes = {"w": width, "f": 4 * width}
    if queries is not None:
        sizes |= {"d": queries.shape[0], "q": _query_number(header.metadata)}
        if queries.shape[0] % _HEAD:
            raise BundleError(file, f"its tensor {_QUERIES} has the shape {list(queries.shape)}, no heads of {_HEAD}")
    for pattern, axes in (_RESAMPLER if queries is not None else _MERGER).items():
        for tensor in (tensor for name, tensor in tensors.items() if re.fullmatch(pattern, name)):
            if len(tensor.shape) != len(axes) or not _fits(tensor.shape, axes, sizes):
                shape = list(tensor.shape)
                raise BundleError(
                    file, f"its tensor {tensor.name} has the shape {shape}, which its others do not go with"
                )


def _fits(shape: tuple[int, ...], axes: str, sizes: dict[str, int]) -> bool:
    """Whether axes have the sizes of their letters; a letter that is met for the first time gets its size."""
    return all(sizes.setdefault(letter, size) == size for letter, size in zip(axes, shape, strict=True))


def _query_number(metadata: Mapping[str, object]) -> int:
    """Of a resampler's queries, as libmtmd finds it."""
    told = next((value for key, value in metadata.items() if _QUERY_NUMBER.fullmatch(key)), 0)
    version = next((value for key, value in metadata.items() if _SIGNED.fullmatch(key)), 0)
    return told if isinstance(told, int) and told else (64 if version in _SIXTY_FOUR else 96)
