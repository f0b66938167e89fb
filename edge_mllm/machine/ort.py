"""What opens an ONNX Runtime session: the options that every one of this package has, and what its values are."""

from __future__ import annotations

import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.errors import EngineError
from edge_mllm.machine.cpu import read_processor
from edge_mllm.machine.kept_graphs import open_graph
from edge_mllm.machine.memory import trim_heap

_ELEMENT_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
}

_UNSIGNED_WEIGHTS = "session.x64quantprecision"
"""ONNX Runtime then takes unsigned 8-bit weights (onnxruntime_session_options_config_keys.h): exact where sums of
unsigned by signed products can overflow 16 bits, and three times slower on a processor with AMX, which needs it not."""
_BYTE_PRODUCTS = {"avx_vnni", "avx512_vnni", "amx_int8"}
"""Instructions that sum products of bytes in 32 bits."""
LEVELS = "signed_levels"
"""Optional input of a graph, float32 []: the largest int8 code of what it multiplies with uint8 codes that it computes
itself. The option above reaches constants only."""
_FEW_LEVELS = np.float32(64)
"""Two products by 255 then fit 16 bits."""


def session_options(threads: int | None) -> Any:
    """onnxruntime.SessionOptions for one graph on the CPU.

    Args:
        threads: Of one run; None lets the library choose.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A pattern is one block for all activations of one shape, in which nothing lies where something else has been: 45
    # to 100 MB more for a tower of 512 px tiles (benchmarks/results/tower_memory.json), and every step of a decoder
    # has another shape.
    options.enable_mem_pattern = False
    if _overflow_here():
        options.add_session_config_entry(_UNSIGNED_WEIGHTS, "1")
    return options


def products_overflow(architecture: str, flags: Collection[str]) -> bool:
    """Whether this is an x86 processor that sums products of bytes in 16 bits; not where its flags are not known."""
    return architecture.lower() in ("x86_64", "amd64") and "avx2" in flags and _BYTE_PRODUCTS.isdisjoint(flags)


def levels_here(session: Any) -> dict[str, npt.NDArray[Any]]:
    """What a run must be given beside its inputs, so that no sum of products overflows on this processor."""
    optional = {node.name for node in session.get_overridable_initializers()}
    return {LEVELS: np.array(_FEW_LEVELS)} if LEVELS in optional and _overflow_here() else {}


def _overflow_here() -> bool:
    return products_overflow(platform.machine(), read_processor().flags)


def open_session(graph: Path, threads: int) -> Any:
    """A session on the CPU provider.

    Raises:
        EngineError: ONNX Runtime cannot load the graph.
    """
    try:
        session = open_graph(graph, session_options(threads))
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise EngineError(f"ONNX Runtime cannot load {graph.name}: {' '.join(str(error).split())[:300]}") from error
    trim_heap()
    return session


def element_type(node: Any, graph: Path) -> type[np.generic]:
    """The numpy type of a graph input or output.

    Raises:
        EngineError: A type that this engine does not handle.
    """
    if node.type not in _ELEMENT_TYPES:
        raise EngineError(f"{graph.name}: '{node.name}' has type {node.type}, which is not supported")
    return _ELEMENT_TYPES[node.type]
