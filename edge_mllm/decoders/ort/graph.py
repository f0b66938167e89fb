"""One graph of an ONNX decoder in memory: what it takes, and a run over tokens that appends to a cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import IntArray
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.ort.cache import OrtCache
from edge_mllm.decoders.ort.states import PREFIX
from edge_mllm.errors import EngineError, PartMismatchError
from edge_mllm.machine.ort import element_type, open_session

KEEP = "num_logits_to_keep"
"""Optional graph input int64 [1]: for how many of the last positions logits are computed."""
BLOCKS = "blocks"
"""Optional graph input int64 [1, n]: the picture that each new token belongs to, -1 for text; the tokens of a picture
see each other in both directions then."""


@dataclass(frozen=True)
class Batch:
    """Tokens on their way into the cache."""

    rows: npt.NDArray[Any]
    """Rows [n, row_width]."""
    positions: IntArray
    """int64 [axes, n]"""
    blocks: IntArray
    """int64 [n], see :func:`edge_mllm.decoders.segments.block_numbers`."""

    def part(self, which: slice) -> Batch:
        """Some of them."""
        return Batch(self.rows[which], self.positions[:, which], self.blocks[which])


class OrtGraph:
    """A graph that takes embeddings and appends to a cache of keys and values."""

    def __init__(self, file: Path, spec: DecoderSpec, threads: int) -> None:
        """Load a graph.

        Raises:
            EngineError: It cannot be loaded or is of a kind this engine does not run.
            PartMismatchError: It and ``spec`` do not belong together.
        """
        self.file, self.session = file, open_session(file, threads)
        inputs = {node.name: node for node in self.session.get_inputs()}
        known = {"inputs_embeds", "attention_mask", "position_ids", KEEP, BLOCKS}
        other = sorted(name for name in inputs.keys() - known if not name.startswith(("past_key_values.", PREFIX)))
        if other or "inputs_embeds" not in inputs or "attention_mask" not in inputs:
            raise EngineError(f"{file.name}: not a decoder that takes embeddings (inputs: {', '.join(inputs)})")
        self.has_blocks, self.has_keep = BLOCKS in inputs, KEEP in inputs
        if self.has_blocks != (spec.image_attention == "bidirectional"):
            reason = f"bundle.json says that pictures attend {spec.image_attention}, {file.name} does otherwise"
            raise PartMismatchError(file.parent, f"{reason}; export the model again or use `engine='gguf'`")
        if inputs["inputs_embeds"].shape[-1] != spec.row_width:
            found = f"takes {inputs['inputs_embeds'].shape}"
            raise PartMismatchError(file.parent, f"{file.name} {found}, bundle.json says otherwise")
        self.type = element_type(inputs["inputs_embeds"], file)
        rank = len(inputs["position_ids"].shape) if "position_ids" in inputs else 0
        self.position_shape = {0: (), 2: (1,), 3: (spec.axes, 1)}[rank]

    def run(self, batch: Batch, cache: OrtCache, past: int, logits: npt.NDArray[Any] | None = None) -> None:
        """Append a batch to a cache that holds ``past`` cells; fill ``logits`` [1, last positions, n_vocab]."""
        count, binding = len(batch.rows), self.session.io_binding()
        arrays = {
            "inputs_embeds": np.ascontiguousarray(batch.rows)[None],
            "attention_mask": np.ones((1, past + count), np.int64),
        }
        if self.position_shape:
            arrays["position_ids"] = np.ascontiguousarray(batch.positions.reshape(*self.position_shape, count))
        if self.has_blocks:
            arrays[BLOCKS] = np.ascontiguousarray(batch.blocks)[None]
        if logits is not None:
            if self.has_keep:
                arrays[KEEP] = np.full(1, logits.shape[1], np.int64)
            bind_out(binding, "logits", logits)
        for name, array in arrays.items():
            bind_in(binding, name, array)
        cache.bind(binding)
        self.session.run_with_iobinding(binding)
        cache.take(binding, past, count)


def bind_in(binding: Any, name: str, array: npt.NDArray[Any]) -> None:
    """Let a graph read an array where it lies."""
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def bind_out(binding: Any, name: str, array: npt.NDArray[Any]) -> None:
    """Let a graph write into an array."""
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
