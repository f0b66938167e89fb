"""How llama.cpp stores keys and values."""

from __future__ import annotations

from edge_mllm.decoders.settings import KVType

_GGML_TYPES: dict[KVType, int] = {"f32": 0, "f16": 1, "q8_0": 8}
"""Values of ggml's enum ggml_type, which are part of the GGUF format."""


def bytes_per_value(kv_type: KVType) -> float:
    """Bytes of one value; q8_0 stores 32 of them in 34 bytes."""
    return {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}[kv_type]


def ggml_type(kv_type: KVType) -> int:
    """The value of ggml's type enum."""
    return _GGML_TYPES[kv_type]
