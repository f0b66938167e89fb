"""A published language model on ONNX Runtime: one graph for the token embeddings, one for everything after them.

``decoder_model_merged`` takes the cache as inputs and gives it back as longer outputs. They stay in ONNX Runtime's
memory from one step to the next and are copied by the graph itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.positions import PositionTrack, joined
from edge_mllm.decoders.protocol import DecoderState, Mark, Segment, Tokens
from edge_mllm.decoders.segments import check_segments, visual_tokens
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import ContextOverflowError, EngineError, PartMismatchError, SettingError
from edge_mllm.interruption import between_steps
from edge_mllm.machine.ort import element_type, open_session

_PAST, _PRESENT, _KEEP, _BRANCH = "past_key_values.", "present.", "num_logits_to_keep", "use_cache_branch"
_KNOWN = {"inputs_embeds", "attention_mask", "position_ids", _KEEP, _BRANCH}


class MergedDecoder:
    """A language model whose graph hands its cache through; see :class:`edge_mllm.decoders.protocol.Decoder`."""

    def __init__(self, graph: Path, embeddings: Path, spec: DecoderSpec, settings: DecoderSettings) -> None:
        """Load both graphs.

        Args:
            graph: decoder_model_merged*.onnx.
            embeddings: embed_tokens*.onnx.
            spec: Dimensions from the directory's configuration.
            settings: Threads, context and chunk size.

        Raises:
            EngineError: A graph cannot be loaded or is of a kind this engine does not run.
            PartMismatchError: The graphs and the configuration do not belong together.
            SettingError: A setting that these graphs do not have.
        """
        if settings.kv_type is not None:
            raise SettingError(f"kv_type '{settings.kv_type}' cannot be chosen: a published graph has its own")
        self.n_embd, self.row_width, self.n_vocab = spec.n_embd, spec.row_width, spec.n_vocab
        self.n_ctx = min(settings.n_ctx or spec.context_length, spec.context_length)
        self._spec, self._settings, self._graph = spec, settings, graph
        self._table = open_session(embeddings, settings.threads)
        self._session = open_session(graph, settings.threads)
        self._track = PositionTrack(spec)
        self._inputs = {node.name: node for node in self._session.get_inputs()}
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._read_graph()
        self._past: list[Any] = []
        self._forget()

    @property
    def n_past(self) -> int:
        """Cells in the KV cache."""
        return len(self._track)

    @property
    def cell_bytes(self) -> int:
        """Bytes of the keys and values of one cell."""
        return sum(heads * width * np.dtype(dtype).itemsize for heads, width, dtype in self._shapes)

    @property
    def can_cut(self) -> bool:
        """Every graph that is run here keeps keys and values only."""
        return True

    def reserve(self, n_cells: int) -> None:
        """Nothing to do: the graph makes room by itself."""

    def warm(self, count: int) -> None:
        """Nothing to do: everything is loaded."""

    def waiting_bytes(self, count: int) -> int:  # noqa: ARG002 - as the protocol has it
        """Nothing is left to load."""
        return 0

    def embed(self, ids: IntArray) -> FloatArray:
        """What the graph is given for token ids int64 [n]: float32 [n, n_embd]."""
        check_segments([Tokens(ids)], self.row_width, self.n_vocab)
        return self._embed(Tokens(ids)).astype(np.float32, copy=False)

    def runs(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        """One piece."""
        return [list(segments)]

    def cuts(self, blocks: IntArray) -> Sequence[int]:
        """Between the runs of the graph, wherever positions run on like text."""
        return () if self._track.axes > 1 else range(self._settings.chunk, len(blocks), self._settings.chunk)

    def prefill(self, segments: Sequence[Segment], *, all_logits: bool = False) -> FloatArray:
        """Append segments; return the logits of the last position [n_vocab], or of every position [n, n_vocab]."""
        count = check_segments(segments, self.row_width, self.n_vocab)
        if count == 0:
            raise EngineError("nothing to prefill")
        if self.n_past + count > self.n_ctx:
            raise ContextOverflowError(self.n_past + count, self.n_ctx, visual_tokens(segments, self.n_past))
        places = joined(self._track.place(segments))
        rows = np.concatenate([self._embed(segment) for segment in segments])
        collected: list[FloatArray] = []
        for start in range(0, count, self._settings.chunk):
            between_steps()
            part = slice(start, min(start + self._settings.chunk, count))
            collected.append(self._run(rows[part], places.positions[:, part], all_logits=all_logits))
            self._track.extend(places.after[part])
        return np.concatenate(collected) if all_logits else collected[-1][-1]

    def step(self, token: int) -> FloatArray:
        """Append one token and return logits float32 [n_vocab]."""
        return self.prefill([Tokens(np.array([token], np.int64))])

    def truncate(self, n_past: int) -> None:
        """Forget every cell from ``n_past`` on."""
        if not 0 <= n_past <= self.n_past:
            raise EngineError(f"cannot cut the cache to {n_past} cells, it has {self.n_past}")
        if n_past < self._past[0].shape()[2]:  # an interrupted run may have left more cells than the track knows of
            self._put(self._copy(n_past))
        self._track.truncate(n_past)

    def mark(self) -> Mark:
        """Note the present place; nothing is copied."""
        return Mark(self.n_past)

    def rewind(self, mark: Mark) -> None:
        """Forget every cell behind a mark."""
        self.truncate(mark.n_past)

    def state(self) -> DecoderState:
        """A copy of the cache: keys and values [1, kv_heads, n, head_dim] in the order of the graph's inputs."""
        return DecoderState(self._track.after, self._copy(self.n_past))

    def restore(self, state: DecoderState) -> None:
        """Replace the cache's contents.

        Raises:
            EngineError: The arrays are not of this graph; the cache is empty then.
        """
        self._forget()
        count = len(state.after)
        expected = [((1, heads, count, width), np.dtype(dtype)) for heads, width, dtype in self._shapes]
        if count > self.n_ctx or [(each.shape, each.dtype) for each in state.arrays] != expected:
            raise EngineError("the saved cache is not of this decoder")
        self._put(state.arrays)
        self._track.extend(state.after)

    def close(self) -> None:
        """Free native memory; the object is unusable afterwards."""
        self._past = []
        self.__dict__.pop("_session", None)
        self.__dict__.pop("_table", None)

    def _read_graph(self) -> None:
        inputs, name = self._inputs, self._graph.name
        self._names = [each for each in inputs if each.startswith(_PAST)]
        other = sorted(inputs.keys() - _KNOWN - set(self._names))
        missing = [each for each in ("inputs_embeds", "attention_mask") if each not in inputs]
        pairs = all(_PRESENT + each.removeprefix(_PAST) in self._outputs for each in self._names)
        if other or missing or not self._names or not pairs or "logits" not in self._outputs:
            raise EngineError(f"{name} is no decoder that can be run (inputs: {', '.join(inputs)})")
        shapes = [(inputs[each].shape, element_type(inputs[each], self._graph)) for each in self._names]
        self._shapes = [
            (shape[1], shape[3] if isinstance(shape[3], int) else self._spec.head_dim or 0, dtype)
            for shape, dtype in shapes
        ]
        logits = next(node for node in self._session.get_outputs() if node.name == "logits")
        found = {
            "layers": (len(self._names) // 2, self._spec.n_layer),
            "width": (inputs["inputs_embeds"].shape[-1], self.n_embd),
            "vocabulary": (logits.shape[-1], self.n_vocab),
        }
        for what, (have, expected) in found.items():
            if isinstance(have, int) and have != expected:
                raise PartMismatchError(self._graph.parent, f"{name} has {what} {have}, config.json says {expected}")
        if not all(isinstance(heads, int) and width for heads, width, _ in self._shapes):
            raise EngineError(f"{name} does not say how large its cache is")
        self._type = element_type(inputs["inputs_embeds"], self._graph)
        rank = len(inputs["position_ids"].shape) if "position_ids" in inputs else 0
        self._position_shape = {0: (), 2: (1,), 3: (self._track.axes, 1)}[rank]

    def _embed(self, segment: Segment) -> npt.NDArray[Any]:
        """Embeddings [n, n_embd] of a segment, in the graph's type."""
        if not isinstance(segment, Tokens):
            return segment.embeddings.astype(self._type, copy=False)
        (rows,) = self._table.run(None, {self._table.get_inputs()[0].name: segment.ids.astype(np.int64)[None]})
        if rows.shape != (1, len(segment.ids), self.n_embd):
            raise PartMismatchError(
                self._graph.parent, f"embed_tokens gives {list(rows.shape)}, not width {self.n_embd}"
            )
        return np.asarray(rows[0]).astype(self._type, copy=False)

    def _run(self, rows: npt.NDArray[Any], positions: IntArray, *, all_logits: bool) -> FloatArray:
        """Run one chunk [n, n_embd]; return logits [n or fewer, n_vocab], the last position's at the end."""
        from onnxruntime import OrtValue

        count = len(rows)
        feeds: dict[str, npt.NDArray[Any]] = {
            "inputs_embeds": np.ascontiguousarray(rows)[None],
            "attention_mask": np.ones((1, self.n_past + count), np.int64),
            "position_ids": np.ascontiguousarray(positions).reshape(*(self._position_shape or (-1,)), count),
            _KEEP: np.array(count if all_logits else 1, np.int64).reshape(self._shape_of(_KEEP)),
            _BRANCH: np.array([self.n_past > 0]),
        }
        values = {name: OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items() if name in self._inputs}
        values |= dict(zip(self._names, self._past, strict=True))
        wanted = ["logits", *(_PRESENT + name.removeprefix(_PAST) for name in self._names)]
        try:
            logits, *present = self._session.run_with_ort_values(wanted, values)
        except Exception as error:  # the classes of ONNX Runtime share no base but this
            raise EngineError(f"{self._graph.name} failed ({' '.join(str(error).split())[:200]})") from error
        self._past = list(present)
        result: FloatArray = logits.numpy()[0].astype(np.float32, copy=False)
        return result

    def _shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a small input that holds one number."""
        return (1,) * len(self._inputs[name].shape) if name in self._inputs else ()

    def _copy(self, count: int) -> tuple[npt.NDArray[Any], ...]:
        return tuple(np.ascontiguousarray(value.numpy()[:, :, :count]) for value in self._past)

    def _put(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        from onnxruntime import OrtValue

        self._past = [OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in arrays]

    def _forget(self) -> None:
        self._track.truncate(0)
        self._put([np.zeros((1, heads, 0, width), dtype) for heads, width, dtype in self._shapes])
