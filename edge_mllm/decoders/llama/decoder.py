"""The language model on llama.cpp, with visual embeddings handed in where the prompt has pictures.

llama.cpp ends the process when an internal check fails, so ids, shapes and room are all checked before it is called.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.bundle.gguf_checks import check_values
from edge_mllm.bundle.gguf_header import read_gguf
from edge_mllm.bundle.spec import DecoderSpec, ImageAttention
from edge_mllm.decoders.llama.batch import row_batch, token_batch
from edge_mllm.decoders.llama.batches import Batches
from edge_mllm.decoders.llama.cache_types import bytes_per_value
from edge_mllm.decoders.llama.context import Capacity, LlamaContext
from edge_mllm.decoders.llama.mapping import worth_mapping
from edge_mllm.decoders.llama.token_rows import find_token_rows
from edge_mllm.decoders.positions import Placed, PositionTrack, joined
from edge_mllm.decoders.protocol import DecoderState, Mark, Segment, Tokens
from edge_mllm.decoders.segments import check_segments, lengths, visual_tokens
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import ContextOverflowError, EngineError, PartMismatchError
from edge_mllm.interruption import between_steps
from edge_mllm.machine.llama import library, load_model
from edge_mllm.machine.native import NativeHandle

_CELLS = 256
"""llama.cpp rounds the cache up to this many cells itself."""
_OUTPUTS = 16
"""Room for logits grows in steps, because the context is made anew for more of it."""


class LlamaDecoder:
    """A language model on llama.cpp; see :class:`edge_mllm.decoders.protocol.Decoder`."""

    def __init__(self, path: Path, spec: DecoderSpec, settings: DecoderSettings) -> None:
        """Load a GGUF file; the cache is made by the first prefill or :meth:`reserve`.

        Args:
            path: decoder.gguf.
            spec: What bundle.json says of the decoder.
            settings: Threads, context, cache type, chunk size.

        Raises:
            ExtraMissingError: llama-cpp-python is not installed.
            BundleError: It is no GGUF file, or has numbers with which llama.cpp would end the process.
            EngineError: llama.cpp refuses the file.
            PartMismatchError: File and spec do not belong together.
        """
        self._api = library().api
        self.n_embd, self.row_width, self.n_vocab = spec.n_embd, spec.row_width, spec.n_vocab
        self.n_ctx = min(settings.n_ctx or spec.context_length, spec.context_length)
        self._path, self._spec, self._settings = path, spec, settings
        check_values(path, read_gguf(path))
        self._model = load_model(path, mmap=worth_mapping(path) if settings.mmap is None else settings.mmap)
        self._check_model(path)
        self._context = LlamaContext(self._model, settings, self.n_vocab)
        self._track = PositionTrack(spec)
        self._ordered = spec.positions == "canvas"
        """Whether cells have numbers beside their positions: time alone would hide cells of a picture from others."""
        self._stale = False
        """Whether the cache may hold cells that the track does not know of, after an interruption."""
        self._token = np.zeros(1, np.int32)
        self._token_position = np.zeros(1, np.int32)
        self._one = token_batch(self._token, self._token_position, np.ones(1, np.int8))

    @property
    def n_past(self) -> int:
        """Cells in the KV cache; none where an interruption left a state that cannot be cut back to them."""
        return 0 if self._stale and not self.can_cut else len(self._track)

    @property
    def cell_bytes(self) -> int:
        """Bytes of the keys and values of one cell."""
        api, model = self._api, self._model.address
        layers = api.llama_model_n_layer(model) - (self._spec.state_layers or 0)
        head = self._spec.head_dim or self.n_embd // api.llama_model_n_head(model)
        values = 2 * layers * api.llama_model_n_head_kv(model) * head
        return int(values * bytes_per_value(self._settings.kv_type or "f16"))

    @property
    def can_cut(self) -> bool:
        """Not for recurrent layers, which keep one state and no cells."""
        api, model = self._api, self._model.address
        return not (api.llama_model_is_recurrent(model) or api.llama_model_is_hybrid(model))

    @property
    def model(self) -> NativeHandle:
        """The model in llama.cpp, for what needs the same vocabulary; there until :meth:`close`."""
        return self._model

    def set_image_attention(self, kind: ImageAttention) -> None:
        """How pictures attend to themselves, where the file does not say it."""
        self._spec = replace(self._spec, image_attention=kind)
        self.__dict__.pop("_batches", None)

    def reserve(self, n_cells: int) -> None:
        """Make room for ``n_cells`` in one go; more than the context holds is cut to it."""
        cells = -(-min(n_cells, self.n_ctx) // _CELLS) * _CELLS
        self._context.ensure(Capacity(cells, batch=self._settings.chunk))

    def warm(self, count: int) -> None:
        """Nothing to do: everything is loaded."""

    def waiting_bytes(self, count: int) -> int:  # noqa: ARG002 - as the protocol has it
        """Nothing is left to load."""
        return 0

    def embed(self, ids: IntArray) -> FloatArray:
        """Embeddings float32 [n, n_embd] of token ids int64 [n].

        Raises:
            EngineError: An id is outside the vocabulary, or this model's tokens are more than rows of a table.
        """
        check_segments([Tokens(ids)], self.row_width, self.n_vocab)
        if self._batches.rows is None:
            raise EngineError(f"{self._path.name}: this model takes token ids only, not their embeddings")
        return self._batches.rows(ids)

    def prefill(self, segments: Sequence[Segment], *, all_logits: bool = False) -> FloatArray:
        """Append segments; return the logits of the last position [n_vocab], or of every position [n, n_vocab]."""
        count = check_segments(segments, self.row_width, self.n_vocab)
        if count == 0:
            raise EngineError("nothing to prefill")
        self._make_room(count, segments, all_logits=all_logits)
        placed = self._track.place(segments)
        if self._batches.joins(segments):
            segments, placed = [self._batches.joined(segments)], [joined(placed)]
        collected: list[FloatArray] = []
        end = self.n_past + count
        for segment, places in zip(segments, placed, strict=True):
            for start, stop in pairwise([0, *self._batches.ends(segment)]):
                between_steps()
                outputs = np.zeros(stop - start, np.int8)
                outputs[-1] = self.n_past + len(outputs) == end
                outputs |= all_logits
                self._run(segment, places, slice(start, stop), outputs, causal=not self._batches.whole_picture(segment))
                collected += [self._context.logits(int(index)) for index in np.flatnonzero(outputs)]
        return np.stack(collected) if all_logits else collected[-1]

    def runs(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        """llama.cpp's batches; text beside pictures as the rows that it is computed as."""
        return [list(segments)] if self._track.axes > 1 else self._batches.runs(segments)

    def cuts(self, blocks: IntArray) -> Sequence[int]:
        """Between llama.cpp's batches, wherever positions run on like text and pictures may be cut."""
        return () if self._track.axes > 1 else self._batches.cuts(blocks)

    def step(self, token: int) -> FloatArray:
        """Append one token and return logits float32 [n_vocab]."""
        if not 0 <= token < self.n_vocab:
            raise EngineError(f"token id {token} is outside the vocabulary of {self.n_vocab}")
        if self._ordered:  # llama.cpp takes one position only with a token's id
            return self.prefill([Tokens(np.array([token], np.int64))])
        if self.n_past >= self._context.capacity.cells or self.n_past >= self.n_ctx:
            self._make_room(1, (), all_logits=False)
        self._clean()
        position = self._track.next
        self._token[0], self._token_position[0] = token, position
        self._stale = True
        self._context.decode(self._one)
        self._track.extend(np.array([position + 1], np.int64))
        self._stale = False
        return self._context.logits(-1)

    def truncate(self, n_past: int) -> None:
        """Forget every cell from ``n_past`` on."""
        if not 0 <= n_past <= self.n_past:
            raise EngineError(f"cannot cut the cache to {n_past} cells, it has {self.n_past}")
        if n_past == self.n_past and not self._stale:
            return
        if 0 < n_past < self.n_past and not self.can_cut:
            raise EngineError(f"this model's state cannot be cut back to {n_past} cells of {self.n_past}")
        position = self._track.position_after(n_past)
        if n_past and n_past < self.n_past and self._track.position_after(n_past + 1) == position:
            raise EngineError("with this model's positions the cache cannot be cut inside a picture")
        self._track.truncate(n_past)
        self._stale = True
        self._clean()

    def mark(self) -> Mark:
        """Note the present place, with a copy of recurrent states."""
        self._clean()
        copied = self.n_past and not self.can_cut
        return Mark(self.n_past, (self._context.partial(),) if copied else ())

    def rewind(self, mark: Mark) -> None:
        """Forget every cell behind a mark."""
        if mark.n_past > self.n_past:
            raise EngineError(f"cannot go back to {mark.n_past} cells, the cache has {self.n_past}")
        if not mark.arrays:
            self.truncate(mark.n_past)
            return
        self._track.truncate(mark.n_past)
        self._stale = True
        self._context.put_back(mark.arrays[0], self._end)
        self._stale = False

    def state(self) -> DecoderState:
        """A copy of the cache, in llama.cpp's own form."""
        self._clean()
        arrays = (self._context.state(),) if self.n_past else ()
        return DecoderState(self._track.after, arrays)

    def restore(self, state: DecoderState) -> None:
        """Replace the cache's contents.

        Raises:
            EngineError: llama.cpp does not take the state; the cache is empty then.
        """
        self.truncate(0)
        count = len(state.after)
        if count > self.n_ctx or (len(state.arrays) == 1) != (count > 0):
            raise EngineError(f"a cache of {count} cells does not fit this model's {self.n_ctx}")
        if count == 0:
            return
        self.reserve(count)
        self._stale = True
        self._context.restore(np.ascontiguousarray(state.arrays[0], np.uint8))
        self._track.extend(state.after)
        self._stale = False

    def close(self) -> None:
        """Free native memory; the object is unusable afterwards."""
        self._context.close()
        self._model.close()

    def _check_model(self, path: Path) -> None:
        api, model = self._api, self._model.address
        n_vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        found = {"n_embd": api.llama_model_n_embd_inp(model), "n_vocab": n_vocab}
        expected = {"n_embd": self.row_width, "n_vocab": self.n_vocab}
        if found != expected:
            self._model.close()
            raise PartMismatchError(path.parent, f"{path.name} has {found}, bundle.json says {expected}")

    def _make_room(self, count: int, segments: Sequence[Segment], *, all_logits: bool) -> None:
        needed, cells = self.n_past + count, self._context.capacity.cells
        if needed > self.n_ctx:
            raise ContextOverflowError(needed, self.n_ctx, visual_tokens(segments, self.n_past))
        batch = self._settings.chunk
        if self._spec.image_attention == "bidirectional":  # a picture must be computed in one piece
            batch = max([batch, *lengths([part for part in segments if not isinstance(part, Tokens)])])
        if needed > cells:
            cells = min(max(needed, cells + cells // 2), self.n_ctx)
        cells = -(-cells // _CELLS) * _CELLS
        self._clean()
        outputs = -(-min(count, batch) // _OUTPUTS) * _OUTPUTS if all_logits else 1
        self._context.ensure(Capacity(cells, outputs, batch))

    @functools.cached_property
    def _batches(self) -> Batches:
        find_rows = functools.partial(find_token_rows, self._path, self._model, self._spec, self._settings)
        whole = self._spec.image_attention == "bidirectional"
        return Batches(find_rows, self.row_width, self._settings.chunk, whole=whole)

    def _clean(self) -> None:
        """Remove cells that an interrupted call left behind; all where their state cannot be cut back."""
        if self._stale:
            if not self.can_cut:
                self._track.truncate(0)
            self._context.remove_from(self._end)
            self._stale = False

    @property
    def _end(self) -> int:
        """What llama.cpp calls the place behind the last cell."""
        return len(self._track) if self._ordered else self._track.next

    def _run(
        self, segment: Segment, places: Placed, part: slice, outputs: npt.NDArray[np.int8], *, causal: bool
    ) -> None:
        """Compute one chunk of a segment and record its cells."""
        self._clean()
        positions = places.positions[:, part]
        if isinstance(segment, Tokens) and not self._ordered:
            batch = token_batch(segment.ids[part], positions[0], outputs)
        else:
            rows = self.embed(segment.ids[part]) if isinstance(segment, Tokens) else segment.embeddings[part]
            order = self._end + np.arange(len(outputs)) if self._ordered else None
            batch = row_batch(rows, positions, outputs, order)
        self._stale = True
        self._context.decode(batch, causal=causal)
        self._track.extend(places.after[part])
        self._stale = False
