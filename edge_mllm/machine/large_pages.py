"""Resident memory moved into large pages, so that reading weights misses the address cache less often.

The ONNX decoder gains by it, llama.cpp within what two runs differ by (benchmarks/results/large_pages.json).

Linux 6.1 and later: ``madvise(MADV_COLLAPSE)`` copies 2 MiB of small pages into one large page at once, whatever
/sys/kernel/mm/transparent_hugepage says (Linux ``Documentation/admin-guide/mm/transhuge.rst``, madvise(2)). Only blocks
that are wholly resident are taken, so that no memory is added; what is mapped from files stays as it is.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import mmap
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mllm.machine.memory import large_page_bytes

_log = logging.getLogger(__name__)

GAINING_ENGINES = ("onnx",)
"""Whose decoding is faster with large pages wherever it was measured."""
BLOCK = 2 << 20
"""Bytes of a large page on x86-64, and on aarch64 with small pages of 4 KiB."""
_PIECE = 4 * BLOCK
"""Collapsed in one call, during which nothing else of the process can be mapped."""
_COLLAPSE = 25
"""MADV_COLLAPSE of Linux ``include/uapi/asm-generic/mman-common.h``."""


@dataclass(frozen=True)
class Collapsed:
    """What was done."""

    bytes: int
    """In large pages that were in small ones before."""
    seconds: float


def collapse_resident(check: Callable[[], None] = lambda: None) -> Collapsed | None:
    """Move this process's own resident memory into large pages.

    Args:
        check: Called between pieces; what it raises ends the work.

    Returns:
        What was done; None where the system cannot do it, which a debug line says.
    """
    start, before = time.perf_counter(), large_page_bytes()
    library = _library()
    if library is None or before is None:
        _log.debug("no large pages: the system is no Linux that tells of them")
        return None
    refused = done = 0
    for address, length in _pieces(library):
        check()
        if library.madvise(address, length, _COLLAPSE) == 0:
            done += length
        elif ctypes.get_errno() == errno.EINVAL:
            refused += length
    if refused and not done:
        _log.debug("no large pages: the kernel does not collapse memory (Linux 6.1 and later do)")
        return None
    found = Collapsed((large_page_bytes() or 0) - before, time.perf_counter() - start)
    _log.debug("%d bytes moved into large pages in %.2f s", found.bytes, found.seconds)
    return found


def anonymous_ranges(maps: str) -> Iterator[tuple[int, int]]:
    """First and last address of private writable memory without a file, cut to whole blocks.

    Args:
        maps: The text of /proc/PID/maps.
    """
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        name = fields[5] if len(fields) > 5 else ""
        if fields[1] != "rw-p" or fields[4] != "0" or name not in ("", "[heap]"):
            continue
        start, end = (int(side, 16) for side in fields[0].split("-"))
        first, last = -(-start // BLOCK) * BLOCK, end // BLOCK * BLOCK
        if first < last:
            yield first, last


def _pieces(library: Any) -> Iterator[tuple[int, int]]:
    """Address and length of runs of wholly resident blocks."""
    for start, end in anonymous_ranges(Path("/proc/self/maps").read_text()):
        begin = start
        for block in range(start, end + BLOCK, BLOCK):
            whole = block < end and _is_resident(library, block)
            if not whole or block - begin >= _PIECE:
                if block > begin:
                    yield begin, block - begin
                begin = block if whole else block + BLOCK


def _is_resident(library: Any, block: int) -> bool:
    """Whether every page of a block is in memory; mincore(2) sets the lowest bit of each page's byte."""
    found = (ctypes.c_ubyte * (BLOCK // mmap.PAGESIZE))()
    return library.mincore(block, BLOCK, found) == 0 and all(value & 1 for value in found)


@functools.cache
def _library() -> Any:
    """The C library with the two calls, or None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_ubyte)]
    return library
