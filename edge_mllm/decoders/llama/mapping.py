"""Whether a GGUF file should be mapped or read.

A mapped file costs memory only for the pages that are used, several processes share them, and the kernel may drop them
again. But llama.cpp copies most kinds of quantised matrices into an order of its own that suits the processor's
instructions (ggml's ``ggml-cpu/repack.cpp``). Loading touches every page of a mapped file for that, so that file and
copy are resident together: 459 MB for a decoder of 228 MB. A file that is read leaves only the copy.
"""

from __future__ import annotations

import math
from pathlib import Path

from edge_mllm.bundle.gguf_header import read_tensors
from edge_mllm.errors import BundleError

_QUANTISED_BITS = 10
"""Matrices with fewer bits per value are in one of the quantised kinds. Which of them are rearranged depends on the
processor and is decided inside llama.cpp; reading a file that could have been mapped does not make memory larger."""


def worth_mapping(path: Path) -> bool:
    """Whether most of a file's weights stay as they lie in it."""
    try:
        tensors = read_tensors(path)
    except BundleError:  # llama.cpp refuses it with a reason
        return True
    quantised = sum(each.bytes for each in tensors if 8 * each.bytes < _QUANTISED_BITS * math.prod(each.shape))
    return 2 * quantised < sum(each.bytes for each in tensors)
