"""What lies in the decoder's cache, cell by cell, so that a new prompt computes only what differs from the last one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from edge_mllm.answer.decoding.keys import (
    Key,
    PictureRows,
    Wait,
    block_numbers,
    message_ends,
    picture_ends,
)
from edge_mllm.arrays import FloatArray
from edge_mllm.decoders.protocol import Decoder, DecoderState, Mark, Segment, Tokens
from edge_mllm.decoders.segments import TEXT, lengths, split_segments
from edge_mllm.errors import EngineError
from edge_mllm.prompt.build import PromptIds

_MARKS = 4
"""Most places to go back to where a decoder's state cannot be cut back: the first one noted, and the latest."""


class CellCache:
    """A decoder together with the knowledge of what its cache holds. Stays right when a call is interrupted.

    Where the decoder's state cannot be cut back, places are noted that it can go back to, with what is needed for it.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._keys: list[Key] = []
        self._marks: list[Mark] = []
        """In order; each is of the cells that are there."""
        self._ends: list[int] = []
        """Cell counts at which a prefill or a step ended, in order."""
        self._rows: dict[bytes, FloatArray] = {}
        """Of the pictures in it, by digest, as far as they are known."""
        self._owner: object = None

    def borders(self, prompt: PromptIds, stops: Collection[int]) -> list[int]:
        """Cell counts at which a prompt's prefill is split; ``stops`` are the token ids that end a message."""
        ends = [] if self.decoder.can_cut else message_ends(prompt, stops)
        return sorted({*picture_ends(prompt), *ends})

    def begin(self, keys: Sequence[Key], borders: Sequence[int] | None) -> tuple[object, int]:
        """:meth:`claim`, and cut the cache back at once."""
        ticket, kept = self.claim(keys, borders)
        return ticket, self.cut(ticket, keys, kept)

    def claim(self, keys: Sequence[Key], borders: Sequence[int] | None) -> tuple[object, int]:
        """Take the cache for a prompt; what is in it stays until :meth:`cut`.

        Args:
            keys: Of the whole prompt.
            borders: Cell counts at which the cache may be cut; None allows any place outside a picture's tokens.

        Returns:
            A ticket for the other calls, and the number of cells that can be kept. At least one cell of the prompt is
            always left to compute, because its logits are needed.
        """
        self._owner = object()
        return self._owner, self.kept(keys, borders)

    def cut(
        self,
        ticket: object,
        keys: Sequence[Key],
        kept: int,
        borders: Sequence[int] | None = None,
        pictures: PictureRows | None = None,
    ) -> int:
        """Cut the cache back to what a prompt keeps.

        Args:
            ticket: From :meth:`claim`.
            keys: Of the whole prompt.
            kept: Cells, from :meth:`claim`.
            borders: Where given, cells behind ``kept`` stay whose pictures are others but have the same rows.
            pictures: Rows of the pictures that are missing.

        Returns:
            The cells that were kept.
        """
        self._check(ticket)
        pictures = pictures or PictureRows()
        if borders is not None and self.decoder.can_cut:
            kept += self._beyond(keys, kept, borders, self._common(keys, pictures))
        self._go_back(kept)
        self._keys = list(keys[:kept])
        digests = {key[0] for key in keys if isinstance(key, tuple)}
        known = self._rows | dict(pictures.rows)
        self._rows = {digest: known[digest] for digest in digests if digest in known}
        return kept

    def kept(self, keys: Sequence[Key], borders: Sequence[int] | None) -> int:
        """How many cells :meth:`claim` would tell; nothing is changed."""
        common = kept = self._common(keys)
        if borders is not None:
            kept = max((border for border in borders if border <= common), default=0)
        while (
            borders is None
            and 0 < kept < len(keys)
            and all(isinstance(key, tuple) for key in keys[kept - 1 : kept + 1])
        ):
            kept -= 1  # inside a picture's run of tokens
        if kept < self.decoder.n_past and not self.decoder.can_cut:
            places = (mark.n_past for mark in self._marks if mark.n_past <= kept)
            return max((place for place in places if borders is None or place in borders), default=0)
        return kept if borders is None else kept + self._beyond(keys, kept, borders, common)

    def _common(self, keys: Sequence[Key], pictures: PictureRows | None = None) -> int:
        """Cells at the beginning that hold the same; a picture's that have the same rows, where rows are given."""
        # A speed probe that was interrupted leaves fewer cells than keys.
        pairs = zip(self._keys[: self.decoder.n_past], keys[:-1], strict=False)
        count = 0
        for before, now in pairs:
            if before != now and not (pictures is not None and self._same_row(before, now, pictures)):
                break
            count += 1
        return count

    def _same_row(self, before: Key, now: Key, pictures: PictureRows) -> bool:
        if not (isinstance(before, tuple) and isinstance(now, tuple)) or before[1] != now[1]:
            return False
        old = self._rows.get(before[0])
        new = None if old is None else pictures.row(*now)
        return old is not None and new is not None and np.array_equal(old[before[1]], new)

    def _beyond(self, keys: Sequence[Key], start: int, borders: Sequence[int], common: int) -> int:
        """Cells behind a border that can be kept too: a prefill that begins there computes them in a run of their own.

        Args:
            keys: Of the whole prompt.
            start: The border.
            borders: Of the prompt; what lies between two is one prefill.
            common: Cells that hold the same.
        """
        if common <= start or not self.decoder.can_cut:
            return 0
        end = min((border for border in borders if border > start), default=len(keys))
        old_end = min((place for place in self._ends if place > start), default=len(self._keys))
        blocks = block_numbers(keys[start:end])
        pictures = np.flatnonzero(blocks != TEXT)
        # Text beside pictures may be computed otherwise than text alone, so both sides must be of one kind.
        if any(isinstance(key, tuple) for key in self._keys[start:old_end]) != bool(len(pictures)):
            return 0
        most = min(common - start, old_end - start - 1, int(pictures[-1]) if len(pictures) else end - start)
        return max((place for place in self.decoder.cuts(blocks) if place <= most), default=0)

    def _go_back(self, count: int) -> None:
        """Forget every cell from ``count`` on, which :meth:`kept` gave."""
        marks = [mark for mark in self._marks if mark.n_past <= count]
        self._forget(count)
        self._marks = []
        if 0 < count < self.decoder.n_past and not self.decoder.can_cut:
            self.decoder.rewind(marks[-1])
        else:
            self.decoder.truncate(count)
        self._marks = marks
        if count and not self.decoder.can_cut:
            self._note_place()  # the end of a turn that is gone on with

    def _forget(self, count: int) -> None:
        del self._keys[count:]
        self._ends = [end for end in self._ends if end <= count]

    def _note_place(self) -> None:
        """Note the present place, unless it is noted; the second oldest gives way."""
        if any(mark.n_past == len(self._keys) for mark in self._marks):
            return
        self._marks.append(self.decoder.mark())
        if len(self._marks) > _MARKS:
            del self._marks[1]

    def prefill(
        self,
        ticket: object,
        keys: Sequence[Key],
        segments: Sequence[Segment],
        borders: Sequence[int],
        wait: Wait | None = None,
    ) -> FloatArray:
        """Append what :meth:`begin` did not keep.

        Args:
            ticket: From :meth:`begin`.
            keys: Of the whole prompt.
            segments: Of the whole prompt; those of kept cells are passed over.
            borders: Cell counts at which the work is split, see :meth:`borders`. Where a state cannot be cut back, the
                last one, and the last one behind a picture, are places to go back to.
            wait: Called before rows of a picture are read, where they are still on their way.

        Returns:
            Logits float32 [n_vocab] of the last position.
        """
        self._check(ticket)
        places = {*borders[-1:], *[border for border in borders if isinstance(keys[border - 1], tuple)][-1:]}
        logits: FloatArray | None = None
        for group in split_segments(segments, len(self._keys), borders):
            for run in [group] if wait is None else self.decoder.runs(group):
                new = keys[len(self._keys) : len(self._keys) + sum(lengths(run))]
                if wait is not None:
                    for digest, number in {key[0]: key[1] for key in new if isinstance(key, tuple)}.items():
                        wait(digest, number + 1)
                logits = self.decoder.prefill(run)
                self._keys.extend(new)
            self._ends.append(len(self._keys))
            if len(self._keys) in places and not self.decoder.can_cut:
                self._note_place()
        if logits is None:
            raise EngineError("nothing to prefill")
        return logits

    def step(self, ticket: object, token: int) -> FloatArray:
        """Append one generated token; return logits float32 [n_vocab]."""
        self._check(ticket)
        logits = self.decoder.step(token)
        self._keys.append(token)
        self._ends.append(len(self._keys))
        return logits

    def extend(self, ticket: object, tokens: Sequence[int]) -> FloatArray:
        """Append several tokens at once; return logits float32 [n, n_vocab] after each."""
        self._check(ticket)
        logits = self.decoder.prefill([Tokens(np.array(tokens, np.int64))], all_logits=True)
        self._keys.extend(tokens)
        self._ends.append(len(self._keys))
        return logits

    def disown(self) -> None:
        """Take the cache away from the answer that has it."""
        self._owner = object()

    def drop(self, ticket: object, count: int) -> None:
        """Remove the last ``count`` cells.

        Raises:
            EngineError: This decoder's state cannot be cut back.
        """
        self._check(ticket)
        self._forget(len(self._keys) - count)
        self.decoder.truncate(len(self._keys))

    @contextmanager
    def aside(self, ticket: object) -> Iterator[None]:
        """Forget at the end of a ``with`` block what was appended in it; where it fails, the next prompt does that."""
        self._check(ticket)
        count = len(self._keys)
        mark = None if self.decoder.can_cut else self.decoder.mark()
        yield
        if mark is None:
            self.drop(ticket, len(self._keys) - count)
            return
        self._check(ticket)
        self._forget(count)
        self.decoder.rewind(mark)

    @property
    def room(self) -> int:
        """Cells that can still be added."""
        return self.decoder.n_ctx - self.decoder.n_past

    @property
    def keys(self) -> tuple[Key, ...]:
        """What the cells hold."""
        return tuple(self._keys)

    def adopt(self, keys: Sequence[Key], state: DecoderState) -> None:
        """Replace the cache's contents by a saved state.

        Raises:
            EngineError: The decoder does not take it; the cache is empty then.
        """
        self._owner = object()
        self._keys, self._marks, self._ends, self._rows = [], [], [], {}
        self.decoder.restore(state)
        self._keys = list(keys)
        self._ends = list(range(1, len(keys) + 1))  # how they were computed is not known
        if keys and not self.decoder.can_cut:
            self._note_place()

    def _check(self, ticket: object) -> None:
        if ticket is not self._owner:
            raise EngineError(
                "another answer was started with this model; finish one before the next, or load it twice"
            )


def _outside_pictures(keys: Sequence[Key], count: int) -> int:
    """The last place up to ``count`` that is not inside a run of pictures' tokens."""
    while 0 < count < len(keys) and isinstance(keys[count], tuple) and isinstance(keys[count - 1], tuple):
        count -= 1
    return count
