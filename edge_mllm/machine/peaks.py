"""What the machine can do at most, measured in about a second: memory bandwidth and matrix-product peaks.

The stages of an answer are set against these: decode reads every weight once per token, so its bytes per second cannot
exceed the bandwidth; the tower multiplies matrices, so its operations per second cannot exceed the peak.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

KERNEL_SIZE = 1024
_OPERATIONS = 2 * KERNEL_SIZE**3
_BUFFER_BYTES = 256 << 20


@dataclass(frozen=True)
class Peaks:
    """Best values seen, with the number of threads they were measured with."""

    threads: int
    read_bytes_per_s: float
    """Reading ``buffer_bytes`` once; with a last-level cache larger than that it is the cache's figure."""
    buffer_bytes: int
    float32_ops_per_s: float
    """One multiply and one add are two operations."""
    int8_ops_per_s: float
    """Unsigned by signed 8-bit products summed in 32 bits."""


def measure_peaks(threads: int, *, seconds: float = 1.0, buffer_bytes: int = _BUFFER_BYTES) -> Peaks:
    """Measure with ``threads`` threads in about ``seconds``.

    Args:
        threads: at least 1.
        seconds: shared evenly between the three measurements; each runs at least twice.
        buffer_bytes: memory that is read; halve it on machines with little memory.
    """
    budget = seconds / 3
    return Peaks(
        threads=threads,
        read_bytes_per_s=_read_bandwidth(threads, budget, buffer_bytes),
        buffer_bytes=buffer_bytes,
        float32_ops_per_s=_kernel_speed("matmul_float32", np.dtype(np.float32), threads, budget),
        int8_ops_per_s=_kernel_speed("matmul_int8", np.dtype(np.uint8), threads, budget),
    )


def _read_bandwidth(threads: int, seconds: float, buffer_bytes: int) -> float:
    """Largest of many: every thread takes the maximum of its own part, which reads each byte once.

    numpy releases the interpreter lock in reductions, and a maximum is vectorised on all targets.
    """
    share = buffer_bytes // threads // 4
    parts = [np.zeros(share, dtype=np.float32) for _ in range(threads)]
    for part in parts:
        part.fill(1.0)  # zeros alone may all be the same page
    with ThreadPoolExecutor(threads) as pool:
        best = _fastest(lambda: list(pool.map(np.max, parts)), seconds)
    return sum(part.nbytes for part in parts) / best


def _kernel_speed(name: str, dtype: np.dtype[Any], threads: int, seconds: float) -> float:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    model = resources.files("edge_mllm.machine").joinpath("kernels", f"{name}.onnx").read_bytes()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    left = np.ones((KERNEL_SIZE, KERNEL_SIZE), dtype=dtype)
    return _OPERATIONS / _fastest(lambda: session.run(None, {"left": left}), seconds)


def _fastest(action: Callable[[], object], seconds: float) -> float:
    """Shortest of all runs that fit the time; the first warms up and does not count."""
    action()
    best, deadline = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < deadline:
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best
