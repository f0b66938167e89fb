"""How much memory an answer will take: what the process has now, and what every stage will add.

Everything the process already holds is measured, not estimated. What is still to come follows from sizes of files and
tensors and from three factors that were measured on int8 towers and 4-bit decoders (benchmarks/run_memory.py, which
also compares the whole with the measured peak).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from edge_mllm.bundle.spec import Engine, VisionSpec
from edge_mllm.costs.shapes import DecoderShape, ModelShape, TowerShape
from edge_mllm.picture.header import PictureHeader

PROGRAM_BYTES = 100 << 20
"""Interpreter and libraries, where the system does not tell what the process has."""
_LIBRARIES = {"onnxruntime": 33_000_000, "llama_cpp": 12_000_000}
"""What loading a library takes for itself, measured with the starter on x86-64."""
_FLOAT = 4
_KEPT = {"int8": 1.2, "int4": 1.2, "fp32": 1.2, "fp16": 2.2}
"""Bytes of a loaded tower for each byte of its file: ONNX Runtime folds constants into wider ones."""
_LOADING = 0.8
"""Of the file's size, on top of that while it is loaded: the parsed file."""
_DECODER: dict[Engine, float] = {"gguf": 1.05, "onnx": 1.1}
"""Bytes of a loaded decoder for each byte of its file: rearranged or packed, with what is left of the file."""
_PATCH = 14
"""Pixels of a patch, where a model does not record its shape."""
_CELLS = 256


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Resident bytes."""

    now_bytes: int
    """What the process has, loaded weights among it."""
    library_bytes: int = 0
    """Engines' libraries still to be loaded."""
    decoder_bytes: int = 0
    """Weights still to be loaded."""
    tower_bytes: int = 0
    """Weights still to be loaded."""
    picture_bytes: int = 0
    """Pixels of pictures that are not decoded yet."""
    decoding_bytes: int = 0
    """The most while they are decoded, their pixels among it."""
    tower_run_bytes: int = 0
    """A picture's tiles and what cutting them takes, and activations of the tower over one of them."""
    cache_bytes: int = 0
    """Keys and values that are not there yet."""
    prefill_bytes: int = 0
    """Activations of the decoder over one chunk of the prompt."""
    loading_bytes: int = 0
    """What loading the tower takes beside its weights for a moment."""
    in_turn: bool = False
    """The tower is freed before the decoder is loaded."""

    @property
    def peak_bytes(self) -> int:
        """The most at one time."""
        tower = self.picture_bytes + self.tower_bytes + max(self.tower_run_bytes, self.loading_bytes)
        language = self.decoder_bytes + self.cache_bytes + self.prefill_bytes
        before = self.now_bytes + self.library_bytes
        if self.in_turn:
            return before + max(self.decoding_bytes, tower, language)
        return before + max(self.decoding_bytes, tower, self.tower_bytes + self.tower_run_bytes + language)

    def __str__(self) -> str:
        named = {
            "now": self.now_bytes,
            "libraries": self.library_bytes,
            "decoder": self.decoder_bytes,
            "pictures": self.decoding_bytes,
            "tower": self.tower_bytes,
            "tower's run": self.tower_run_bytes,
            "keys and values": self.cache_bytes,
            "prefill": self.prefill_bytes,
        }
        told = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in named.items() if size)
        return f"MB: {told}"


def missing_libraries(names: Iterable[str]) -> int:
    """Bytes of the libraries among ``names`` that this process has not loaded yet."""
    return sum(_LIBRARIES[name] for name in names if name not in sys.modules)


def pictures_run(headers: Iterable[PictureHeader]) -> tuple[int, int]:
    """Bytes of pictures once they are decoded, and the most while they are, one after the other."""
    held = most = 0
    for header in headers:
        most = max(most, held + header.decoding_bytes)
        held += header.held_bytes
    return held, most


def tower_weights(file_bytes: int, precision: str) -> tuple[int, int]:
    """Bytes of a loaded tower, and what loading takes beside them."""
    return int(_KEPT.get(precision, max(_KEPT.values())) * file_bytes), int(_LOADING * file_bytes)


def decoder_weights(file_bytes: int, engine: Engine) -> int:
    """Bytes of a loaded decoder."""
    return int(_DECODER[engine] * file_bytes)


def tower_run(vision: VisionSpec, shape: TowerShape | None, tiles: int, tokens: int) -> int:
    """Bytes of the tiles of one picture, and of activations over one of them (all of it where there are no tiles).

    Counted are the widest layers of a transformer block and the scores of its attention in single precision.
    """
    if vision.patches is None or vision.patches.pooled:
        values = tiles * 3 * vision.tile_width * vision.tile_height
        patches = shape.patches if shape else (vision.tile_width // _PATCH) * (vision.tile_height // _PATCH)
    else:
        values = tokens * vision.patches.merge**2 * vision.patches.values
        patches = -(-tokens // tiles) * vision.patches.merge**2
    hidden, wide = (shape.hidden, shape.n_ff) if shape else (1152, 4304)
    heads = -(-hidden // 64)
    return _FLOAT * (values + patches * (3 * hidden + wide) + heads * patches**2)


def prefill_run(shape: DecoderShape | None, n_embd: int, chunk: int, tokens: int) -> int:
    """Bytes of activations of a decoder over one chunk of a prompt of ``tokens``."""
    rows = min(chunk, tokens)
    wide, heads = (shape.n_ff, shape.n_head) if shape else (4 * n_embd, -(-n_embd // 64))
    return _FLOAT * rows * (4 * n_embd + 3 * wide + heads * tokens)


def cache_cells(needed: int, there: int, context: int) -> int:
    """Cells that the cache still has to grow by."""
    cells = min(-(-needed // _CELLS) * _CELLS, context)
    return max(0, cells - there)


def tower_of(shape: ModelShape | None) -> TowerShape | None:
    """The tower's part of a shape that may not be known."""
    return None if shape is None else shape.tower


def decoder_of(shape: ModelShape | None) -> DecoderShape | None:
    """The decoder's part of a shape that may not be known."""
    return None if shape is None else shape.decoder
