"""Kinds of decoder by their positions and attention, and a prompt with a picture for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tiny_gemma3 import make_tiny_gemma3
from tiny_models import make_tiny_smolvlm
from tiny_qwen2_vl import make_tiny_qwen2_5_vl
from tiny_qwen3_vl import make_tiny_qwen3_vl

from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.protocol import Segment, Tokens, Visual


def make_tied(directory: Path, *, seed: int = 1) -> Path:
    """One whose embeddings are its output head."""
    return make_tiny_smolvlm(directory, seed=seed, tied=True, text={"hidden_size": 256, "head_dim": 64})


KINDS: dict[str, Callable[[Path], Path]] = {
    "one axis": make_tied,
    "three axes": make_tiny_qwen2_5_vl,
    "rows for further layers": make_tiny_qwen3_vl,
    "both ways": make_tiny_gemma3,
}
"""Kind of decoder -> what makes a tiny checkpoint of it."""


def shown_picture(spec: DecoderSpec) -> list[Segment]:
    """Text, a picture of 24 tokens, text."""
    draw = np.random.default_rng(3)
    picture = 0.7 * draw.normal(size=(24, spec.row_width)).astype(np.float32)
    grid = (4, 6) if spec.positions == "mrope" else None
    ids = draw.integers(0, spec.n_vocab, 60)
    return [Tokens(ids[:40]), Visual(picture, grid), Tokens(ids[40:])]
