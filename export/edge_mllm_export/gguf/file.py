"""A GGUF file written one tensor at a time, so that memory holds one tensor and never the model."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edge_mllm.errors import EdgeMLLMError, ExtraMissingError

if TYPE_CHECKING:
    import gguf

GgufType = Literal["F32", "F16", "BF16", "Q8_0"]
"""Types that are written directly; everything else is llama.cpp's own quantiser's work."""


class GgufError(EdgeMLLMError, ValueError):
    """A model cannot be written as GGUF; the message names the file or tensor and the reason."""

    def __init__(self, subject: str | Path, reason: str) -> None:
        super().__init__(f"cannot write '{subject}' as GGUF: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a file: its row-major shape, its type in the file and a function that reads it.

    ``load`` returns float32 of that shape and is called once, when the tensor's turn has come.
    """

    name: str
    shape: tuple[int, ...]
    dtype: GgufType
    load: Callable[[], npt.NDArray[np.float32]]


def gguf_library() -> Any:
    """The gguf package (llama.cpp's own writer and tables).

    Raises:
        ExtraMissingError: when it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise ExtraMissingError("export", "gguf") from error
    return gguf


def write_gguf(
    out: Path,
    arch: str,
    fields: Callable[[gguf.GGUFWriter], None],
    tensors: Sequence[GgufTensor],
) -> None:
    """Write a GGUF file.

    Args:
        out: the file to write; an existing one is replaced.
        arch: value of ``general.architecture``.
        fields: adds all further metadata to the writer.
        tensors: in the order in which they go into the file.

    Raises:
        GgufError: a tensor is named twice, has another shape than announced, holds a value its type cannot hold, or
            its rows do not fit the type's blocks.
        OSError: the file cannot be written.
    """
    library = gguf_library()
    writer = library.GGUFWriter(None, arch)
    fields(writer)
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise GgufError(out.name, f"several tensors are called {', '.join(twice)}")
    for tensor in tensors:
        _announce(writer, tensor)
    try:
        writer.write_header_to_file(out)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(_encode(tensor))
    except OSError as error:
        raise _with_reason(error, out) from error
    finally:
        writer.close()


def _with_reason(error: OSError, out: Path) -> OSError:
    """Say why a write was short, which numpy's tofile does not."""
    if error.errno is not None:
        return error
    try:
        with out.open("ab") as file:
            file.write(bytes(1 << 16))
    except OSError as reason:
        return reason
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))


def _announce(writer: gguf.GGUFWriter, tensor: GgufTensor) -> None:
    library = gguf_library()
    kind = library.GGMLQuantizationType[tensor.dtype]
    block, size = library.GGML_QUANT_SIZES[kind]
    if tensor.shape[-1] % block:
        raise GgufError(
            tensor.name, f"its rows of {tensor.shape[-1]} values are not a multiple of {tensor.dtype}'s block ({block})"
        )
    # The dtype only matters for types the library derives itself; with raw_dtype given it must not be uint8, which
    # would make it take the shape for one in bytes.
    writer.add_tensor_info(
        tensor.name, tensor.shape, np.dtype(np.float32), prod(tensor.shape) // block * size, raw_dtype=kind
    )


def _encode(tensor: GgufTensor) -> npt.NDArray[Any]:
    library = gguf_library()
    data = tensor.load()
    if data.shape != tensor.shape:
        raise GgufError(tensor.name, f"it has the shape {data.shape}, announced was {tensor.shape}")
    with np.errstate(over="ignore"):
        encoded: npt.NDArray[Any] = library.quants.quantize(
            np.ascontiguousarray(data), library.GGMLQuantizationType[tensor.dtype]
        )
    probe = encoded if tensor.dtype == "F16" else data
    if not bool(np.isfinite(probe).all()):
        raise GgufError(tensor.name, f"it holds values that are not finite in {tensor.dtype}")
    return encoded
