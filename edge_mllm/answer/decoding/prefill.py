"""A prompt into the decoder's cache: what it holds is kept, the rest is computed. Every prefill goes through here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edge_mllm.answer.decoding.cells import CellCache
from edge_mllm.answer.decoding.keys import PictureRows, Wait, picture_ends, prompt_keys
from edge_mllm.answer.decoding.splice import splice
from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.prompt.build import PromptIds


class Prefill:
    """One prompt on its way into the cache, which is cut back to what can be kept when its pictures' rows are there.

    Args:
        cells: The decoder and what its cache holds.
        prompt: Token ids with places for pictures.
        names: One for each picture, equal exactly when the decoder gets the same of both.
        keep_any: Keep the longest common beginning wherever it ends, instead of up to a picture's end only.
        stops: Token ids that end a message.
    """

    def __init__(
        self,
        cells: CellCache,
        prompt: PromptIds,
        names: Sequence[bytes],
        *,
        keep_any: bool = False,
        stops: Collection[int] = (),
    ) -> None:
        self._cells, self._prompt, self._names = cells, prompt, names
        self._keys, self._pictures = prompt_keys(prompt, names), picture_ends(prompt)
        self._borders = cells.borders(prompt, stops)
        self._keep_any = keep_any
        self.ticket, self.kept = cells.claim(self._keys, None if keep_any else self._borders)
        """What :meth:`CellCache.step` asks for, and the cells that are kept; :meth:`fill` may find more."""

    @property
    def cells(self) -> int:
        """Cells of the whole prompt."""
        return len(self._keys)

    @property
    def missing(self) -> list[bool]:
        """For each picture whether its embeddings are needed."""
        return [end > self.kept for end in self._pictures]

    def fill(
        self,
        embeddings: Sequence[FloatArray],
        grids: Sequence[tuple[int, int] | None],
        kept: Sequence[IntArray | None] | None = None,
        wait: Wait | None = None,
    ) -> FloatArray:
        """Compute what was not kept.

        Args:
            embeddings: Per picture float32 [visual tokens, row_width]; what is not :attr:`missing` is not read.
            grids: Per picture (rows, columns) of visual tokens, for 2-D position schemes.
            kept: Per picture the places of its tokens in that grid, where not all are there.
            wait: Where embeddings are still on their way: called before they are read.

        Returns:
            Logits float32 [n_vocab] of the answer's first token.

        Raises:
            PromptError: Counts or widths do not match.
            EngineError: The decoder failed, or another answer was begun meanwhile.
        """
        missing = zip(self._names, embeddings, self.missing, strict=True)
        pictures = PictureRows({name: rows for name, rows, needed in missing if needed}, wait)
        borders = None if self._keep_any else self._borders
        self.kept = self._cells.cut(self.ticket, self._keys, self.kept, borders, pictures)
        segments = splice(self._prompt, embeddings, self._cells.decoder.row_width, grids, kept)
        return self._cells.prefill(self.ticket, self._keys, segments, self._borders, wait)
