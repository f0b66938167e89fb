"""One tensor of the checkpoint that lies beside published ONNX files, which leave it out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm.errors import BundleError

_MOST_HEADER = 1 << 26
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def find_tensor(directory: Path, names: Iterable[str]) -> tuple[Path, FloatArray] | None:
    """The first of the names in the directory's safetensors files: the file and the values in float32.

    The layout (8-byte little-endian length, JSON header, data) is that of the safetensors format description.

    Raises:
        BundleError: A file is no safetensors file, or the tensor has a type without a meaning here.
    """
    wanted = tuple(names)
    for file in sorted(directory.glob("*.safetensors")):
        header, start = _header(file)
        for name in wanted:
            if name in header:
                return file, _values(file, name, header[name], start)
    return None


def _header(file: Path) -> tuple[dict[str, Any], int]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        text = opened.read(length) if length <= _MOST_HEADER else b""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(file.parent, f"{file.name} is no safetensors file") from error
    if not isinstance(header, dict):
        raise BundleError(file.parent, f"{file.name} is no safetensors file")
    return header, 8 + length


def _values(file: Path, name: str, entry: Any, start: int) -> FloatArray:
    stored: npt.NDArray[Any]
    try:
        kind, (begin, end) = np.dtype(_TYPES[entry["dtype"]]), entry["data_offsets"]
        with file.open("rb") as opened:
            opened.seek(start + begin)
            stored = np.frombuffer(opened.read(end - begin), kind).reshape(entry["shape"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise BundleError(file.parent, f"{file.name}: {name} cannot be read") from error
    if entry["dtype"] == "BF16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    values: FloatArray = stored.astype(np.float32)
    return values
