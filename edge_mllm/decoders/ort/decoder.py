"""The language model on ONNX Runtime.

Runs graphs as onnxruntime-genai's model builder writes them with ``exclude_embeds=true``: embeddings in, logits out,
one key and one value buffer for each layer of attention, and states of the others. The token embedding table lies
beside the graph and is memory-mapped. Where layers take further rows of visual tokens, ``inputs_embeds`` holds them
behind the embeddings; for text they are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.bundle.npy import read_array
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.ort.cache import OrtCache
from edge_mllm.decoders.ort.graph import BLOCKS, KEEP, Batch, OrtGraph, bind_in, bind_out
from edge_mllm.decoders.ort.prompt import PromptGraph
from edge_mllm.decoders.positions import PositionTrack, joined
from edge_mllm.decoders.protocol import DecoderState, Mark, Segment, Tokens
from edge_mllm.decoders.segments import (
    TEXT,
    block_numbers,
    check_segments,
    chunks,
    split_segments,
    visual_tokens,
)
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import ContextOverflowError, EngineError, PartMismatchError, SettingError
from edge_mllm.interruption import between_steps
from edge_mllm.machine.ort import element_type

_CELLS = 256
"""The cache grows in steps of this many cells."""


class OrtDecoder:
    """A language model on ONNX Runtime's CPU provider; see :class:`edge_mllm.decoders.protocol.Decoder`."""

    def __init__(
        self,
        graph: Path,
        embeddings: Path,
        spec: DecoderSpec,
        settings: DecoderSettings,
        *,
        prompt: Path | None = None,
    ) -> None:
        """Load a graph.

        Args:
            graph: decoder.onnx; external data lies beside it.
            embeddings: Token embedding table, .npy float32 or float16 [n_vocab or more, n_embd].
            spec: What bundle.json says of the decoder.
            settings: Threads, context and chunk size.
            prompt: prompt.onnx, which computes long runs of a prompt faster; loaded when the first one comes.

        Raises:
            EngineError: The graph cannot be loaded or is of a kind this engine does not run.
            PartMismatchError: Graph, table and spec do not belong together.
            SettingError: A setting that this graph does not have.
        """
        self.n_embd, self.row_width, self.n_vocab = spec.n_embd, spec.row_width, spec.n_vocab
        self.n_ctx = min(settings.n_ctx or spec.context_length, spec.context_length)
        self._spec, self._settings = spec, settings
        self._graph = OrtGraph(graph, spec, settings.threads)
        self._table = _open_table(embeddings, spec)
        self._cache = OrtCache(self._graph.session, graph, spec.head_dim)
        if bool(self._cache.states) != bool(spec.state_layers):
            reason = f"{graph.name} keeps {'states' if self._cache.states else 'keys and values only'}"
            raise PartMismatchError(graph.parent, f"{reason}, bundle.json says otherwise (decoder.state_layers)")
        self.can_cut = not self._cache.states
        """Not where layers keep states beside keys and values."""
        self._prompt = None if prompt is None else PromptGraph(prompt, spec, settings, self._cache)
        self._track = PositionTrack(spec)
        self._read_logits()
        self._step = self._graph.session.io_binding()
        self._bind_step()

    @property
    def n_past(self) -> int:
        """Cells in the KV cache; none where an interruption left states that do not belong to them."""
        count = len(self._track)
        return count if self.can_cut or self._cache.states.seen == count else 0

    @property
    def cell_bytes(self) -> int:
        """Bytes of the keys and values of one cell."""
        return self._cache.cell_bytes

    def reserve(self, n_cells: int) -> None:
        """Make room for ``n_cells`` in one go; more than the context holds is cut to it."""
        if n_cells > self._cache.capacity:
            rounded = -(-n_cells // _CELLS) * _CELLS
            self._cache.grow(min(rounded, self.n_ctx), self.n_past)
            self._cache.bind(self._step)

    def embed(self, ids: IntArray) -> FloatArray:
        """Embeddings float32 [n, n_embd] of token ids int64 [n]: rows that do the same as the ids."""
        check_segments([Tokens(ids)], self.row_width, self.n_vocab)
        rows = self._look_up(ids) if self._spec.scales_pictures else self._embed(Tokens(ids))
        return rows.astype(np.float32, copy=False)

    def prefill(self, segments: Sequence[Segment], *, all_logits: bool = False) -> FloatArray:
        """Append segments; return the logits of the last position [n_vocab], or of every position [n, n_vocab]."""
        count = check_segments(segments, self.row_width, self.n_vocab)
        if count == 0:
            raise EngineError("nothing to prefill")
        self._make_room(count, segments)
        places = joined(self._track.place(segments))
        batch = Batch(self._rows(segments, count), places.positions, block_numbers(segments))
        done = 0 if all_logits or self._prompt is None else self._prompt.run(batch, self._track, places.after)
        chunk = 1 if all_logits and self._last_only else self._settings.chunk
        collected: list[FloatArray] = []
        for start, end in chunks(batch.blocks[done:], chunk, whole=self._graph.has_blocks):
            between_steps()
            part = slice(done + start, done + end)
            logits = self._logits(1 if self._last_only or (self._graph.has_keep and not all_logits) else end - start)
            self._graph.run(batch.part(part), self._cache, self.n_past, logits)
            self._track.extend(places.after[part])
            if all_logits or part.stop == count:
                collected.append(logits[0].astype(np.float32, copy=False))
        return np.concatenate(collected) if all_logits else collected[-1][-1]

    def runs(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        """The runs of the graph; one piece for prompt weights, which leave a prompt's last token to the others."""
        blocks = block_numbers(segments)
        if self._track.axes > 1 or (self._prompt is not None and self._prompt.pays(len(blocks))):
            return [list(segments)]
        ends = [end for _, end in chunks(blocks, self._settings.chunk, whole=self._graph.has_blocks)]
        return split_segments(segments, 0, ends)

    def cuts(self, blocks: IntArray) -> Sequence[int]:
        """Between the runs of the graph, wherever positions run on like text and pictures may be cut."""
        if self._track.axes > 1 or self._graph.has_blocks:
            return ()
        if self._prompt is not None:
            return self._prompt.cuts(len(blocks))
        return range(self._settings.chunk, len(blocks), self._settings.chunk)

    def warm(self, count: int) -> None:
        """Load the prompt weights, where a prefill of ``count`` tokens will use them."""
        if self._prompt is not None and self._prompt.pays(count):
            self._prompt.open()

    def waiting_bytes(self, count: int) -> int:
        """Bytes of files that :meth:`warm` would load."""
        return self._prompt.waiting_bytes if self._prompt is not None and self._prompt.pays(count) else 0

    def step(self, token: int) -> FloatArray:
        """Append one token and return logits float32 [n_vocab]."""
        if not 0 <= token < self.n_vocab:
            raise EngineError(f"token id {token} is outside the vocabulary of {self.n_vocab}")
        if self._prompt is not None:
            self._prompt.rest()
        past = self.n_past
        if past >= self._cache.capacity:
            self._make_room(1, ())
        self._one[0, 0, : self.n_embd] = self._table[token]
        if self._spec.embedding_scale != 1.0:
            self._one *= self._spec.embedding_scale
        self._step_position.fill(self._track.next)
        self._step.bind_input("attention_mask", "cpu", 0, np.int64, (1, past + 1), self._mask_address)
        self._cache.states.bind(self._step)
        self._graph.session.run_with_iobinding(self._step)
        self._cache.states.take(1)
        self._track.extend(self._step_position.reshape(-1)[:1] + 1)
        logits: FloatArray = self._step_logits[0, -1].astype(np.float32)
        return logits

    def truncate(self, n_past: int) -> None:
        """Forget every cell from ``n_past`` on."""
        if not 0 <= n_past <= self.n_past:
            raise EngineError(f"cannot cut the cache to {n_past} cells, it has {self.n_past}")
        if n_past == 0:
            self._cache.states.clear()
        elif n_past < self.n_past and not self.can_cut:
            raise EngineError(f"this model's state cannot be cut back to {n_past} cells of {self.n_past}")
        self._track.truncate(n_past)

    def mark(self) -> Mark:
        """Note the present place, with a copy of the states."""
        return Mark(self.n_past, self._cache.states.copy())

    def rewind(self, mark: Mark) -> None:
        """Forget every cell behind a mark."""
        if mark.n_past > self.n_past:
            raise EngineError(f"cannot go back to {mark.n_past} cells, the cache has {self.n_past}")
        self._cache.states.fill(mark.arrays, mark.n_past)
        self._track.truncate(mark.n_past)

    def state(self) -> DecoderState:
        """A copy of the cache: keys and values [1, kv_heads, n, head_dim] by the graph's inputs, then states."""
        return DecoderState(self._track.after, self._cache.copy(self.n_past))

    def restore(self, state: DecoderState) -> None:
        """Replace the cache's contents.

        Raises:
            EngineError: The arrays are not of this graph.
        """
        self.truncate(0)
        count = len(state.after)
        if count > self.n_ctx:
            raise EngineError(f"a cache of {count} cells does not fit this model's {self.n_ctx}")
        self.reserve(count)
        self._cache.fill(state.arrays, count)
        self._track.extend(state.after)

    def close(self) -> None:
        """Free native memory; the object is unusable afterwards."""
        self.__dict__.pop("_step", None)
        self.__dict__.pop("_cache", None)
        self.__dict__.pop("_graph", None)
        self.__dict__.pop("_prompt", None)

    def _read_logits(self) -> None:
        session, file = self._graph.session, self._graph.file
        logits = next((node for node in session.get_outputs() if node.name == "logits"), None)
        if logits is None or logits.shape[-1] != self.n_vocab:
            found = logits.shape if logits else "no logits"
            raise PartMismatchError(file.parent, f"{file.name} gives {found}, bundle.json says otherwise")
        if self._settings.kv_type not in (None, "f32"):
            raise SettingError(f"kv_type '{self._settings.kv_type}' is for the gguf engine; this graph's cache is f32")
        self._logits_type = element_type(logits, file)
        self._last_only = not self._graph.has_keep and logits.shape[1] == 1

    def _bind_step(self) -> None:
        """Bind what stays in place from one decoding step to the next."""
        self._mask = np.ones((1, self.n_ctx), np.int64)
        self._mask_address = self._mask.ctypes.data
        self._one = np.zeros((1, 1, self.row_width), self._graph.type)
        self._step_position = np.zeros((*(self._graph.position_shape or (1,)), 1), np.int64)
        self._step_logits = self._logits(1)
        self._keep_one = np.ones(1, np.int64)
        bind_in(self._step, "inputs_embeds", self._one)
        if self._graph.position_shape:
            bind_in(self._step, "position_ids", self._step_position)
        if self._graph.has_keep:
            bind_in(self._step, KEEP, self._keep_one)
        self._no_block = np.full((1, 1), TEXT, np.int64)
        if self._graph.has_blocks:
            bind_in(self._step, BLOCKS, self._no_block)
        bind_out(self._step, "logits", self._step_logits)

    def _logits(self, count: int) -> npt.NDArray[Any]:
        """Room for logits of the last ``count`` positions."""
        return np.empty((1, count, self.n_vocab), self._logits_type)

    def _make_room(self, count: int, segments: Sequence[Segment]) -> None:
        needed = self.n_past + count
        if needed > self.n_ctx:
            raise ContextOverflowError(needed, self.n_ctx, visual_tokens(segments, self.n_past))
        if needed > self._cache.capacity:
            self.reserve(max(needed, self._cache.capacity + self._cache.capacity // 2))

    def _rows(self, segments: Sequence[Segment], count: int) -> npt.NDArray[Any]:
        """What the graph takes of ``count`` cells [count, row_width]; zeros where text has no further layers' rows."""
        rows, start = np.zeros((count, self.row_width), self._graph.type), 0
        for segment in segments:
            found = self._embed(segment)
            rows[start : start + len(found), : found.shape[1]] = found
            start += len(found)
        return rows

    def _embed(self, segment: Segment) -> npt.NDArray[Any]:
        if isinstance(segment, Tokens):
            rows, scales = self._look_up(segment.ids), True
        else:
            rows, scales = segment.embeddings.astype(self._graph.type, copy=False), self._spec.scales_pictures
        unscaled = self._spec.embedding_scale == 1.0 or not scales
        return rows if unscaled else rows * self._graph.type(self._spec.embedding_scale)

    def _look_up(self, ids: IntArray) -> npt.NDArray[Any]:
        return np.asarray(self._table[ids]).astype(self._graph.type, copy=False)


def _open_table(path: Path, spec: DecoderSpec) -> npt.NDArray[Any]:
    table = read_array(path, "the embedding table", mapped=True)
    if table.ndim != 2 or table.shape[1] != spec.n_embd or len(table) < spec.n_vocab or table.dtype.kind != "f":
        expected = f"floats [{spec.n_vocab}, {spec.n_embd}]"
        raise PartMismatchError(path.parent, f"{path.name} holds {table.dtype} {list(table.shape)}, not {expected}")
    return np.asarray(table)
