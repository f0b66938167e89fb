"""The graph that computes prompts: 8-bit integer products over many tokens, keys and values its only outputs.

It appends to the cache of the decoder whose graph it was made from (``edge_mllm_export.write.onnx.prompt``). A row's
result does not depend on the rows beside it, so it does not matter either where a prompt is cut into runs, unless the
cache is kept in 8 bits: a run reads its own keys and values before they are rounded.
"""

from __future__ import annotations

from pathlib import Path

from edge_mllm.arrays import IntArray
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.ort.cache import OrtCache
from edge_mllm.decoders.ort.graph import Batch, OrtGraph
from edge_mllm.decoders.positions import PositionTrack
from edge_mllm.decoders.segments import TEXT, chunks
from edge_mllm.decoders.settings import DecoderSettings
from edge_mllm.errors import PartMismatchError
from edge_mllm.interruption import between_steps

LEAST_RUN, RUN = 32, 256
"""Tokens of a prefill from which this graph is used, and most that it computes at once: 16 tokens take as long with
decoder.onnx, and attention over longer runs computes more that the causal mask hides
(benchmarks/results/prompt_weights.json)."""


class PromptGraph:
    """Loaded when the first long prefill comes, or before by :meth:`open`."""

    def __init__(self, file: Path, spec: DecoderSpec, settings: DecoderSettings, cache: OrtCache) -> None:
        """Note what is needed to load it.

        Args:
            file: prompt.onnx; external data lies beside it.
            spec: What bundle.json says of the decoder.
            settings: Threads and chunk size, and whether it stays in memory between prompts.
            cache: Of the decoder.
        """
        self._file, self._spec, self._settings, self._cache = file, spec, settings, cache
        self._most = min(settings.chunk, RUN)
        self._graph: OrtGraph | None = None

    @staticmethod
    def pays(count: int) -> bool:
        """Whether it is used for a prefill of so many tokens."""
        return count >= LEAST_RUN

    def cuts(self, count: int) -> list[int]:
        """Places between its runs in a prefill of ``count`` tokens; what is behind each must be worth it as well."""
        places = range(self._most, count, self._most)
        return [place for place in places if self.pays(place) and self.pays(count - place)]

    @property
    def waiting_bytes(self) -> int:
        """Bytes of files that loading it would read; 0 when it is loaded."""
        files = (self._file, self._file.with_name(self._file.name + ".data"))
        return 0 if self._graph is not None else sum(file.stat().st_size for file in files if file.exists())

    def open(self) -> OrtGraph:
        """Load it now, or return what was loaded.

        Raises:
            EngineError: It cannot be loaded.
            PartMismatchError: It was made from another decoder.
        """
        if self._graph is None:
            graph = OrtGraph(self._file, self._spec, self._settings.threads)
            if not self._cache.suits(graph.session, graph.file, self._spec.head_dim):
                reason = f"{self._file.name} does not keep the keys and values of the decoder"
                raise PartMismatchError(self._file.parent, f"{reason}; export the model again")
            self._graph = graph
        return self._graph

    def run(self, batch: Batch, track: PositionTrack, after: IntArray) -> int:
        """Append all of a prefill but what its logits need, if that is long enough to be worth it.

        Args:
            batch: Of the whole prefill.
            track: Of the decoder's cells; extended by those that are appended.
            after: int64 [n]: for each token the position that follows it.

        Returns:
            Tokens appended. The last one is always left, and all of its picture's where they see each other.
        """
        whole = self._spec.image_attention == "bidirectional"
        count, last = len(batch.blocks) - 1, batch.blocks[-1]
        if whole and last != TEXT:
            count = int((batch.blocks == last).argmax())
        if count == 0 or not self.pays(len(batch.blocks)):
            return 0
        graph = self.open()
        for start, end in chunks(batch.blocks[:count], self._most, whole=whole):
            between_steps()
            graph.run(batch.part(slice(start, end)), self._cache, len(track))
            track.extend(after[start:end])
        return count

    def rest(self) -> None:
        """Prompts are over for now: free the weights, where they are not to stay."""
        if self._settings.prompt_weights == "free":
            self._graph = None
