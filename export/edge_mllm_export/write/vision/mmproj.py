"""The vision tower with its projector as ``mmproj.gguf``, for llama.cpp's libmtmd."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_mllm.bundle.gguf_pair import BEFORE_PICTURE, POSITIONS
from edge_mllm_export.checkpoint.tensor_store import SINGLE
from edge_mllm_export.errors import RecipeError, TensorsError
from edge_mllm_export.gguf.file import GgufError, GgufTensor, GgufType, gguf_library, write_gguf

if TYPE_CHECKING:
    import gguf

    from edge_mllm_export.checkpoint.checkpoint import Checkpoint
    from edge_mllm_export.families.family import Family, MmprojSpec

_TYPES: dict[str, GgufType] = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0"}
_Q8_BLOCK = 32
_OVER_TIME = 5
"""Axes of a convolution's kernel over time, rows and columns."""


def write_mmproj(checkpoint: Checkpoint, family: Family, out: Path, precision: str) -> None:
    """Write the tower for libmtmd, with the metadata llama.cpp's own converter writes.

    Args:
        checkpoint: the opened checkpoint.
        family: its family; ``family.mmproj`` says what tensors and keys are called.
        out: the file to write.
        precision: of the matrices, ``f32``, ``f16`` or ``q8_0``. Vectors, norms and embeddings stay F32; rows that
            Q8_0's blocks of 32 do not divide are F16.

    Raises:
        GgufError: libmtmd has no projector for this family.
        RecipeError: there is no such precision.
        CheckpointError: libmtmd would compute something else than this checkpoint does.
        TensorsError: tensors of the tower are missing.
    """
    spec = family.mmproj
    if spec is None:
        raise GgufError(out.name, f"llama.cpp's libmtmd has no projector for {family.name}; leave `mmproj` out")
    if precision not in _TYPES:
        raise RecipeError(precision, _TYPES)
    keys = {"clip.projector_type": spec.projector_type, **spec.keys(checkpoint), **_own_keys(checkpoint, family)}
    tensors = list(_tensors(checkpoint, spec, _TYPES[precision]))
    fields = partial(_fields, checkpoint=checkpoint, keys=keys, precision=precision, tensors=tensors)
    write_gguf(out, "clip", fields, tensors)


def _fields(
    writer: gguf.GGUFWriter, *, checkpoint: Checkpoint, keys: dict[str, Any], precision: str, tensors: list[GgufTensor]
) -> None:
    library = gguf_library()
    kinds = library.LlamaFileType
    total = sum(prod(tensor.shape) for tensor in tensors)
    writer.add_type(library.GGUFType.MMPROJ)
    writer.add_name(checkpoint.id)
    writer.add_license(checkpoint.licence)
    writer.add_size_label(library.size_label(total, total, 0, 0))
    writer.add_file_type({"f32": kinds.ALL_F32, "f16": kinds.MOSTLY_F16, "q8_0": kinds.MOSTLY_Q8_0}[precision])
    writer.add_clip_has_vision_encoder(True)
    for key, value in keys.items():
        _add(writer, key, value)
    writer.add_quantization_version(library.GGML_QUANT_VERSION)


def _own_keys(checkpoint: Checkpoint, family: Family) -> dict[str, str]:
    """What libmtmd does otherwise than the model's own processor and edge-mllm's pairs need to know."""
    before, decoder = family.prompt(checkpoint).layout.before_image, family.decoder(checkpoint)
    keys = {BEFORE_PICTURE: before} if "{picture}" in before else {}
    return keys | ({POSITIONS: "sequential"} if decoder.positions == "sequential" and decoder.axes > 1 else {})


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Add metadata with the type llama.cpp reads: bool, uint32, int32 (of numpy), float32, string or an array."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, np.int32):
        writer.add_int32(key, int(value))
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))


def _tensors(checkpoint: Checkpoint, spec: MmprojSpec, dtype: GgufType) -> Iterator[GgufTensor]:
    known = spec.names(checkpoint)
    patterns = [(_pattern(source), target) for source, target in known.items()]
    used: set[str] = set()
    for source in sorted(checkpoint.tensors, key=_layer_order):
        for pattern, target in patterns:
            match = pattern.fullmatch(source)
            if match:
                used.add(pattern.pattern)
                names = [name.replace("{i}", match.groupdict().get("i") or "") for name in _names(target)]
                shape = _part_shape(checkpoint.tensors[source].shape, len(names))
                for part, name in enumerate(names):
                    load = partial(_load, checkpoint, source, (part, len(names)), spec)
                    kind = "F16" if source in spec.halved else _kind(source, name, shape, dtype, spec)
                    yield GgufTensor(name, shape[::-1] if source in spec.transposed else shape, kind, load)
                break
    if spec.computed is not None:
        yield from spec.computed(checkpoint)
    unused = [source for source in known if _pattern(source).pattern not in used]
    if unused:
        raise TensorsError(SINGLE, missing=unused)


def _pattern(source: str) -> re.Pattern[str]:
    return re.compile(re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)"))


def _layer_order(name: str) -> tuple[int, str]:
    numbers = [int(part) for part in name.split(".") if part.isdecimal()]
    return (numbers[0] if numbers else -1, name)


def _kind(source: str, name: str, shape: tuple[int, ...], dtype: GgufType, spec: MmprojSpec) -> GgufType:
    """Type of one tensor, by the rules of llama.cpp's converter (conversion/base.py and smolvlm.py)."""
    if source in spec.f16_embeddings:
        return "F16" if dtype == "F16" else "F32"
    if (
        len(shape) < 2
        or not name.endswith((".weight", ".weight.1"))
        or ".embeddings." in source
        or ".position_embd." in name
        or name.endswith("_norm.weight")
    ):
        return "F32"
    if dtype == "Q8_0" and shape[-1] % _Q8_BLOCK:
        return "F32" if ".patch_embd." in name else "F16"
    return dtype


def _names(target: str | tuple[str, ...]) -> tuple[str, ...]:
    return (target,) if isinstance(target, str) else target


def _part_shape(shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    if parts == 1:
        return tuple(shape)
    if len(shape) == _OVER_TIME:
        return (*shape[:2], *shape[3:])
    return (shape[0] // parts, *shape[1:])


def _load(checkpoint: Checkpoint, source: str, cut: tuple[int, int], spec: MmprojSpec) -> npt.NDArray[np.float32]:
    """One of a tensor's equal parts; ``cut`` is its number and how many there are."""
    import torch

    part, parts = cut
    values: npt.NDArray[np.float32] = checkpoint.tensor(source).to(torch.float32).numpy()
    if source in spec.added:
        values = values + np.float32(spec.added[source])
    if source in spec.transposed:
        values = np.ascontiguousarray(values.T)
    if parts == 1:
        return values
    return np.ascontiguousarray(values[:, :, part] if values.ndim == _OVER_TIME else np.split(values, parts)[part])
