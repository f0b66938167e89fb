"""Batches of llama.cpp that point into numpy arrays.

Ids and shapes must have been checked: llama.cpp aborts on bad input.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray
from edge_mllm.machine.llama import library

Int8Array = npt.NDArray[np.int8]
WholeNumbers = npt.NDArray[np.integer]


def token_batch(ids: WholeNumbers, positions: WholeNumbers, outputs: Int8Array) -> Any:
    """A batch of token ids of sequence 0.

    Args:
        ids: [n]; int32 is pointed at, anything else is copied.
        positions: [n], likewise.
        outputs: [n], 1 where logits are wanted.
    """
    batch = _batch(np.ascontiguousarray(positions, np.int32), outputs)
    tokens = np.ascontiguousarray(ids, np.int32)
    batch.token = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    batch._tokens = tokens
    return batch


def row_batch(rows: FloatArray, positions: WholeNumbers, outputs: Int8Array, order: WholeNumbers | None = None) -> Any:
    """A batch of embeddings of sequence 0.

    Args:
        rows: float32 [n, row_width].
        positions: [1, n], or [3, n] for time, height and width.
        outputs: [n], 1 where logits are wanted.
        order: [n], ascending numbers by which cells see those before them, where time does not tell it. The file's
            sections of rotary frequencies have time last then.
    """
    if order is not None:
        positions = np.stack([order, *positions[1:], positions[0]])
    elif len(positions) > 1:  # one axis after the other, and a fourth that is not used
        positions = np.concatenate([positions, np.zeros_like(positions[:1])])
    batch = _batch(np.ascontiguousarray(positions, np.int32).reshape(-1), outputs)
    embeddings = np.ascontiguousarray(rows, np.float32)
    batch.embd = embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    batch._embeddings = embeddings
    return batch


def _batch(positions: npt.NDArray[np.int32], outputs: Int8Array) -> Any:
    batch = library().api.llama_batch()
    batch.n_tokens = len(outputs)
    batch.pos = positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    batch.logits = outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
    batch._arrays = positions, outputs  # kept alive
    return batch
