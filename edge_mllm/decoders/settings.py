"""Settings that both decoder engines take."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

from edge_mllm.arguments import require_numbers
from edge_mllm.errors import SettingError

KVType = Literal["f32", "f16", "q8_0"]
PromptWeights = Literal["keep", "free", "off"]
KV_TYPES: tuple[KVType, ...] = ("f32", "f16", "q8_0")


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """How a decoder runs.

    Raises:
        SettingError: A value is outside its range.
    """

    threads: int
    n_ctx: int | None = None
    """Most cells the cache may grow to; None is the model's own limit."""
    kv_type: KVType | None = None
    """Precision of the cache; None is the engine's default (what the graph was exported with, or f16)."""
    flash_attention: bool | None = None
    """Only for the gguf engine; None lets the engine choose."""
    chunk: int = 512
    """Prompt tokens computed at once: bounds the memory of activations. 4-bit kernels give slightly different logits
    for different splits, so a result is reproducible for one value only."""
    mmap: bool | None = None
    """Map weights from the file instead of reading them into memory; only for the gguf engine. None maps them unless
    llama.cpp rearranges most of them, which would keep them in memory twice."""

    prompt_weights: PromptWeights = "keep"
    """Prompt weights of a bundle that has them, for the onnx engine: in memory from the first long prompt on, from a
    prompt's beginning to the answer's second token, or not used."""

    def __post_init__(self) -> None:
        require_numbers(Integral, threads=self.threads, n_ctx=self.n_ctx, chunk=self.chunk)
        if not 1 <= self.threads <= 1024:
            raise SettingError(f"threads is {self.threads}; it must be between 1 and 1024")
        if self.n_ctx is not None and self.n_ctx < 1:
            raise SettingError(f"n_ctx is {self.n_ctx}; it must be at least 1")
        if self.kv_type is not None and self.kv_type not in KV_TYPES:
            raise SettingError(f"kv_type is '{self.kv_type}'; it must be one of {', '.join(KV_TYPES)}")
        if self.prompt_weights not in get_args(PromptWeights):
            known = ", ".join(get_args(PromptWeights))
            raise SettingError(f"prompt_weights is '{self.prompt_weights}'; it must be one of {known}")
        if self.chunk < 1:
            raise SettingError(f"chunk is {self.chunk}; it must be at least 1")
