"""Block formats against gguf-py's own dequantiser, and llama.cpp's bytes back from their codes."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from edge_mllm_quant.weights.gguf_blocks import FORMATS, read_grid, write_codes


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_codes_and_grid_are_what_gguf_reads(kind: str) -> None:
    form, random = FORMATS[kind], np.random.default_rng(3)
    rows, columns = 3, 512
    data = random.integers(0, 256, (rows, columns // form.block * form.size), dtype=np.uint8)
    blocks = data.reshape(-1, form.size)
    halves = {"Q4_0": (0,), "IQ4_NL": (0,), "Q4_K": (0, 2), "Q6_K": (208,)}[kind]
    for place in halves:  # any bytes are codes, but scales must be numbers
        blocks[:, place : place + 2] = random.normal(0, 0.01, (len(blocks), 1)).astype(np.float16).view(np.uint8)
    codes = random.integers(0, len(read_grid(kind, data).levels), (rows, columns), dtype=np.uint8)
    written = write_codes(kind, data, codes)
    expected = gguf.quants.dequantize(written, gguf.GGMLQuantizationType[kind])
    assert np.allclose(read_grid(kind, written).values(codes), expected, rtol=1e-6, atol=1e-7)
    assert (written != data).any() and written.shape == data.shape
    for place in halves:
        kept = written.reshape(-1, form.size)[:, place : place + 2]
        assert np.array_equal(kept, blocks[:, place : place + 2])
