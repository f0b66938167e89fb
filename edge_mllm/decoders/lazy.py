"""A decoder that is loaded when it is first used, so that tower and decoder need not be in memory together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.decoders.protocol import Decoder, DecoderState, Mark, Segment


class LazyDecoder:
    """Stands for a decoder; see :class:`edge_mllm.decoders.protocol.Decoder`.

    Args:
        open_now: Loads it.
        spec: What bundle.json says of it.
        n_ctx: The caller's limit on the context.
    """

    def __init__(self, open_now: Callable[[], Decoder], spec: DecoderSpec, n_ctx: int | None) -> None:
        self._open = open_now
        self._decoder: Decoder | None = None
        self._keeps_states = bool(spec.state_layers)
        self.n_embd, self.row_width, self.n_vocab = spec.n_embd, spec.row_width, spec.n_vocab
        self.n_ctx = min(n_ctx or spec.context_length, spec.context_length)

    @property
    def opened(self) -> bool:
        """Whether it is in memory."""
        return self._decoder is not None

    @property
    def n_past(self) -> int:
        """Cells in the KV cache."""
        return 0 if self._decoder is None else self._decoder.n_past

    @property
    def cell_bytes(self) -> int | None:
        """Bytes of the keys and values of one cell; None before loading."""
        return None if self._decoder is None else self._decoder.cell_bytes

    @property
    def can_cut(self) -> bool:
        """Whether the cache can be cut back to any place; before loading, what bundle.json says."""
        return not self._keeps_states if self._decoder is None else self._decoder.can_cut

    def open(self) -> Decoder:
        """Load it now, or return what was loaded.

        Raises:
            EngineError: The engine cannot load it.
        """
        if self._decoder is None:
            self._decoder = self._open()
        return self._decoder

    def reserve(self, n_cells: int) -> None:
        """Make room for ``n_cells`` in one go."""
        self.open().reserve(n_cells)

    def warm(self, count: int) -> None:
        """Load it, and what a prefill of ``count`` tokens will use."""
        self.open().warm(count)

    def waiting_bytes(self, count: int) -> int:
        """Bytes that :meth:`warm` would load beside the decoder itself; 0 before loading."""
        return 0 if self._decoder is None else self._decoder.waiting_bytes(count)

    def embed(self, ids: IntArray) -> FloatArray:
        """Embeddings float32 [n, n_embd] of token ids int64 [n]."""
        return self.open().embed(ids)

    def prefill(self, segments: Sequence[Segment], *, all_logits: bool = False) -> FloatArray:
        """Append segments; return the logits of the last position or of every one."""
        return self.open().prefill(segments, all_logits=all_logits)

    def runs(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        """Segments in pieces that are computed one by one anyway."""
        return self.open().runs(segments)

    def cuts(self, blocks: IntArray) -> Sequence[int]:
        """Places inside one prefill from which it may be gone on with."""
        return self.open().cuts(blocks)

    def step(self, token: int) -> FloatArray:
        """Append one token and return logits float32 [n_vocab]."""
        return self.open().step(token)

    def truncate(self, n_past: int) -> None:
        """Forget every cell from ``n_past`` on."""
        if self._decoder is not None or n_past:
            self.open().truncate(n_past)

    def mark(self) -> Mark:
        """Note the present place."""
        return self.open().mark()

    def rewind(self, mark: Mark) -> None:
        """Forget every cell behind a mark."""
        self.open().rewind(mark)

    def state(self) -> DecoderState:
        """A copy of the cache."""
        return self.open().state()

    def restore(self, state: DecoderState) -> None:
        """Replace the cache's contents."""
        self.open().restore(state)

    def close(self) -> None:
        """Free native memory; the object is unusable afterwards."""
        if self._decoder is not None:
            self._decoder.close()
