"""One llama.cpp context with its KV cache: rebuilt with its contents when it must grow, valid after an interruption."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm.decoders.llama.cache_types import ggml_type
from edge_mllm.decoders.settings import DecoderSettings, KVType
from edge_mllm.errors import EngineError
from edge_mllm.machine.llama import library
from edge_mllm.machine.native import NativeHandle

_FLASH = {None: -1, False: 0, True: 1}
"""llama.cpp's enum llama_flash_attn_type: auto, disabled, enabled."""

_PARTIAL = 1
"""llama.cpp's LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: recurrent states without the cells of attention."""


@dataclass(frozen=True)
class Capacity:
    """Sizes that are fixed when a context is made."""

    cells: int
    outputs: int = 1
    """Most positions whose logits one call computes; buffers of outputs x vocabulary depend on it."""
    batch: int = 512

    def covers(self, other: Capacity) -> bool:
        """Whether a context of this size serves the other one too."""
        return self.cells >= other.cells and self.outputs >= other.outputs and self.batch >= other.batch

    def joined(self, other: Capacity) -> Capacity:
        """The larger of both in every respect."""
        sizes = (max(self.cells, other.cells), max(self.outputs, other.outputs), max(self.batch, other.batch))
        return Capacity(*sizes)


class LlamaContext:
    """A context over a loaded model. Everything handed in must have been validated: llama.cpp aborts on bad input."""

    def __init__(self, model: NativeHandle, settings: DecoderSettings, n_vocab: int) -> None:
        self._api = library().api
        self._model, self._settings, self._n_vocab = model, settings, n_vocab
        self._native: NativeHandle | None = None
        self._capacity = Capacity(0, 0, 0)

    @property
    def _handle(self) -> Any:
        """llama.cpp's; None before the first :meth:`ensure` and after :meth:`close`."""
        return None if self._native is None else self._native.address

    @property
    def capacity(self) -> Capacity:
        """Present sizes; zeros before the first :meth:`ensure`."""
        return self._capacity

    def ensure(self, wanted: Capacity) -> None:
        """Rebuild the context when it is too small; the cache's contents move along.

        Raises:
            EngineError: llama.cpp cannot make the context (memory).
        """
        if self._handle and self._capacity.covers(wanted):
            return
        size = self._capacity.joined(wanted)
        state = self.state() if self._handle else None
        self.close()
        self._native = self._create(size)
        self._capacity = size
        if state is not None:
            self.restore(state)

    def decode(self, batch: Any, *, causal: bool = True) -> None:
        """Run one batch.

        Raises:
            EngineError: llama.cpp reports a failure.
        """
        if not causal:
            self._api.llama_set_causal_attn(self._handle, False)
        try:
            status = self._api.llama_decode(self._handle, batch)
        finally:
            if not causal:
                self._api.llama_set_causal_attn(self._handle, True)
        if status != 0:
            raise library().failure(f"llama.cpp failed to decode (status {status})")

    def logits(self, index: int) -> FloatArray:
        """A copy of the logits float32 [n_vocab] of the ``index``-th token of the last batch; -1 is the last output."""
        address = self._api.llama_get_logits_ith(self._handle, index)
        if not address:
            raise library().failure("llama.cpp gave no logits")
        view: npt.NDArray[np.float32] = np.ctypeslib.as_array(address, shape=(self._n_vocab,))
        return view.copy()

    def remove_from(self, position: int) -> None:
        """Remove every cell at ``position`` or later.

        Raises:
            EngineError: This kind of memory (recurrent) cannot be cut back.
        """
        if not self._handle:
            return
        memory = self._api.llama_get_memory(self._handle)
        if position == 0:
            self._api.llama_memory_clear(memory, False)
        elif not self._api.llama_memory_seq_rm(memory, 0, position, -1):
            raise EngineError("this model's state cannot be cut back to an earlier position; start again from 0")

    def partial(self) -> npt.NDArray[np.uint8]:
        """A copy of what cannot be cut back (recurrent states), as bytes [n].

        Raises:
            EngineError: llama.cpp cannot copy it.
        """
        size = self._api.llama_state_seq_get_size_ext(self._handle, 0, _PARTIAL)
        copy = np.empty(size, np.uint8)
        if self._api.llama_state_seq_get_data_ext(self._handle, _bytes(copy), size, 0, _PARTIAL) != size:
            raise library().failure("llama.cpp cannot copy this model's state")
        return copy

    def put_back(self, partial: npt.NDArray[np.uint8], position: int) -> None:
        """Put a copy of :meth:`partial` back, and remove every other cell at ``position`` or later.

        Raises:
            EngineError: llama.cpp refuses it.
        """
        if self._api.llama_state_seq_set_data_ext(self._handle, _bytes(partial), len(partial), 0, _PARTIAL) == 0:
            raise library().failure("llama.cpp cannot restore this model's state")
        self.remove_from(position)

    def close(self) -> None:
        """Free the context."""
        native, self._native = self._native, None
        if native is not None:
            native.close()

    def _create(self, size: Capacity) -> NativeHandle:
        api, settings = self._api, self._settings
        parameters = api.llama_context_default_params()
        kv_type: KVType = settings.kv_type or "f16"
        for name, value in {
            "n_ctx": size.cells,
            "n_batch": size.batch,
            "n_ubatch": size.batch,
            "n_seq_max": 1,
            "n_outputs_max": size.outputs,
            "n_threads": settings.threads,
            "n_threads_batch": settings.threads,
            "type_k": ggml_type(kv_type),
            "type_v": ggml_type(kv_type),
            "flash_attn_type": _FLASH[_flash_attention(settings, kv_type)],
            "offload_kqv": False,
            "op_offload": False,
            "swa_full": True,  # a sliding window could not be cut back to an earlier position
            "no_perf": True,
        }.items():
            _set_field(parameters, name, value)
        handle = api.llama_init_from_model(self._model.address, parameters)
        if not handle:
            raise library().failure(f"llama.cpp cannot make a context of {size.cells} cells with a {kv_type} cache")
        return NativeHandle(handle, api.llama_free, self._model)

    def state(self) -> npt.NDArray[np.uint8]:
        """A copy of the cache, as bytes [n].

        Raises:
            EngineError: llama.cpp cannot copy it.
        """
        size = self._api.llama_state_seq_get_size(self._handle, 0)
        copy = np.empty(size, np.uint8)
        if self._api.llama_state_seq_get_data(self._handle, _bytes(copy), size, 0) != size:
            raise library().failure("llama.cpp cannot copy the cache")
        return copy

    def restore(self, state: npt.NDArray[np.uint8]) -> None:
        """Put a copy, bytes [n], back into a context that is large enough.

        Raises:
            EngineError: llama.cpp refuses it.
        """
        if self._api.llama_state_seq_set_data(self._handle, _bytes(state), len(state), 0) == 0:
            raise library().failure("llama.cpp cannot restore the cache")


def _bytes(array: npt.NDArray[np.uint8]) -> Any:
    """Where an array lies, for a call that reads or fills it."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _flash_attention(settings: DecoderSettings, kv_type: KVType) -> bool | None:
    """Off for an f32 cache unless asked for: llama.cpp's CPU kernel sums in half precision (1e-2 in logits)."""
    if settings.flash_attention is None and kv_type == "f32":
        return False
    return settings.flash_attention


def _set_field(structure: Any, name: str, value: int | bool) -> None:
    """Set a field that exists: ctypes takes unknown names without a word."""
    if name not in {field[0] for field in structure._fields_}:
        raise EngineError(f"this llama-cpp-python has no context parameter '{name}'; install 0.3.36 or newer")
    setattr(structure, name, value)
