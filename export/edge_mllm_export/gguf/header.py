"""The tensors of a finished GGUF file, as numpy would say them; the runtime reads the header."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from edge_mllm.bundle.gguf_header import read_gguf
from edge_mllm_export.gguf.file import gguf_library


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header lists it."""

    shape: tuple[int, ...]
    """Row-major, as numpy would say it."""
    dtype: str
    """GGML's name, for example ``Q4_0``."""
    offset: int
    """First byte in the file."""

    @property
    def weights(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        library = gguf_library()
        block, size = library.GGML_QUANT_SIZES[library.GGMLQuantizationType[self.dtype]]
        return int(self.weights // block * size)


def read_entries(path: Path) -> dict[str, TensorEntry]:
    """Tensor name -> entry, in the order of the file.

    Raises:
        BundleError: it is no GGUF file of version 2 or 3, or is truncated.
    """
    types = gguf_library().GGMLQuantizationType
    return {
        tensor.name: TensorEntry(tensor.shape[::-1], types(tensor.kind).name, tensor.offset)
        for tensor in read_gguf(path).tensors
    }
