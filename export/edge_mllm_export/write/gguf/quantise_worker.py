"""The child process around ``llama_model_quantize``: reads a request file, logs to standard error, exits 0 or 1.

Run by path, so it imports nothing of this package.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(request_file: str) -> int:
    """Quantise as the JSON request says and return the exit status."""
    import llama_cpp

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]
    def forward(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()

    llama_cpp.llama_log_set(forward, ctypes.c_void_p(0))
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = request["ftype"]
    params.nthread = request["threads"]
    if request["head"] is not None:
        params.output_tensor_type = request["head"]
    if request["embedding"] is not None:
        params.token_embedding_type = request["embedding"]
    if request["tensors"]:
        params.tt_overrides = _overrides(llama_cpp, request["tensors"])
    arrays: dict[str, Any] = {}  # llama.cpp keeps pointers into these
    if request["imatrix"]:
        with np.load(request["imatrix"], allow_pickle=False) as stored:
            arrays = {name: np.ascontiguousarray(stored[name], dtype=np.float32) for name in stored.files}
        params.imatrix = _imatrix(llama_cpp, arrays)
    status = llama_cpp.llama_model_quantize(request["source"].encode(), request["out"].encode(), ctypes.byref(params))
    return 1 if status else 0


def _overrides(llama_cpp: Any, tensors: list[tuple[str, int]]) -> Any:
    """A list of (pattern, type) that ends with an empty entry."""
    entries = (llama_cpp.llama_model_tensor_override * (len(tensors) + 1))()
    for entry, (pattern, kind) in zip(entries, tensors, strict=False):
        entry.pattern, entry.type = pattern.encode(), kind
    return entries


def _imatrix(llama_cpp: Any, arrays: dict[str, Any]) -> Any:
    """A list of named float32 rows that ends with an empty entry."""
    entries = (llama_cpp.llama_model_imatrix_data * (len(arrays) + 1))()
    for entry, (name, values) in zip(entries, arrays.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return entries


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
