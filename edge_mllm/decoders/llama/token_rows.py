"""Token embeddings of a GGUF file as rows of floats, so that text and pictures can go to llama.cpp in one batch.

A batch of llama.cpp holds token ids or embeddings, never both. Handed over apart, a picture of 13 tiles with a few
marker tokens between them makes 27 small batches, which run at a third of the speed of full ones. So the rows of the
text are looked up here, by ggml's own routine for the tensor's type: the same bits as its ``ggml_get_rows`` gives.

Some models treat ids and embeddings differently (a factor on the rows of ids, tables of their own for every layer).
Whether a row stands for its id is therefore asked of llama.cpp before the rows are used.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.bundle.gguf_header import read_tensors
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.llama.batch import row_batch, token_batch
from edge_mllm.decoders.llama.context import Capacity, LlamaContext
from edge_mllm.decoders.segments import widened
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import EngineError
from edge_mllm.machine.llama import library
from edge_mllm.machine.native import NativeHandle

_log = logging.getLogger(__name__)
_TENSOR = "token_embd.weight"
_F32 = 0
"""ggml's only type without a routine that makes floats of it."""


class TokenRows:
    """The token embedding table of a file. It is mapped: only rows that are used come into memory."""

    def __init__(self, path: Path, spec: DecoderSpec) -> None:
        """Find the table.

        Raises:
            BundleError: The file cannot be read.
            EngineError: It has no table of the model's size, or this ggml does not read its type.
        """
        tensor = next((each for each in read_tensors(path) if each.name == _TENSOR), None)
        if tensor is None or tensor.shape != (spec.n_embd, spec.n_vocab):
            raise EngineError(f"{path.name} has no table of {spec.n_vocab} token embeddings of width {spec.n_embd}")
        traits = library().type_traits(tensor.kind)
        row = traits.type_size * spec.n_embd // max(1, traits.block)
        if row * spec.n_vocab > tensor.bytes or not (traits.to_float or tensor.kind == _F32):
            raise EngineError(f"{path.name}: token embeddings of ggml's type {tensor.kind} cannot be read")
        self._width, self._traits = spec.n_embd, traits
        self._data = np.memmap(path, np.uint8, "r", tensor.offset, (spec.n_vocab, row))
        self.scale = np.float32(1.0)
        """Factor on every row."""

    def __call__(self, ids: IntArray) -> FloatArray:
        """Rows float32 [n, n_embd] of ids [n], all of them in the vocabulary."""
        packed = np.ascontiguousarray(self._data[ids])
        if not self._traits.to_float:
            rows = packed.view(np.float32)
        else:
            rows = np.empty((len(ids), self._width), np.float32)
            self._traits.to_float(packed.ctypes.data, rows.ctypes.data, rows.size)
        return rows if self.scale == 1.0 else rows * self.scale


def find_token_rows(path: Path, model: NativeHandle, spec: DecoderSpec, settings: DecoderSettings) -> TokenRows | None:
    """The rows that llama.cpp takes for tokens, bit for bit; None where this model wants the ids themselves.

    Args:
        path: The file that ``model`` was loaded from.
        model: It, in llama.cpp.
        spec: Its dimensions; ``embedding_scale`` is tried before 1.
        settings: Of the decoder.
    """
    try:
        rows = TokenRows(path, spec)
    except EngineError as error:
        _log.info("pictures and text go to llama.cpp apart: %s", error)
        return None
    context = LlamaContext(model, settings, spec.n_vocab)
    try:
        ids = np.array([spec.n_vocab // 3, spec.n_vocab - 1, spec.n_vocab // 2], np.int64)
        context.ensure(Capacity(len(ids), batch=len(ids)))
        expected = _last_logits(context, token_batch(ids, np.arange(len(ids)), _last(len(ids))))
        positions = np.tile(np.arange(len(ids)), (spec.axes, 1))
        for scale in dict.fromkeys((spec.embedding_scale, 1.0)):
            rows.scale = np.float32(scale)
            context.remove_from(0)
            if np.array_equal(
                _last_logits(context, row_batch(widened(rows(ids), spec.row_width), positions, _last(len(ids)))),
                expected,
            ):
                return rows
    finally:
        context.close()
    _log.info("pictures and text go to llama.cpp apart: this model does more with a token than to look up its row")
    return None


def _last(count: int) -> npt.NDArray[np.int8]:
    outputs = np.zeros(count, np.int8)
    outputs[-1] = 1
    return outputs


def _last_logits(context: LlamaContext, batch: Any) -> FloatArray:
    context.decode(batch)
    return context.logits(-1)
