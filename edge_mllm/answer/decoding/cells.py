"""What lies in the decoder's cache, cell by cell, so that a new prompt computes only what differs from the last one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from edge_mllm.arrays import FloatArray
from edge_mllm.decoders.protocol import Decoder, DecoderState, Mark, Segment, Tokens
from edge_mllm.decoders.segments import lengths, split_segments
from edge_mllm.errors import EngineError
from edge_mllm.prompt.build import PromptIds

Key = int | tuple[bytes, int]
"""What a cell holds: a token id, or a picture's digest with the number of the visual token in it."""


Wait = Callable[[bytes, int], None]
"""Waits until the picture of a digest has its first so many rows."""


def prompt_keys(prompt: PromptIds, digests: Sequence[bytes]) -> list[Key]:
    """One key for each token of a prompt; ``digests`` names its pictures in order."""
    keys: list[Key] = list(prompt.ids.tolist())
    for slot, digest in zip(prompt.slots, digests, strict=True):
        visual = 0
        for index in range(slot.start, slot.start + slot.length):
            if keys[index] == prompt.image_token_id:
                keys[index] = (digest, visual)
                visual += 1
    return keys


_MARKS = 4
"""Most places to go back to where a decoder's state cannot be cut back: the first one noted, and the latest."""


def picture_ends(prompt: PromptIds) -> list[int]:
    """Cells up to and including each picture. Prefill is always split there.

    4-bit kernels give slightly different logits for different splits. With fixed borders an answer does not depend on
    whether the cells before a border were computed now or for an earlier question.
    """
    return [slot.start + slot.length for slot in prompt.slots]


def message_ends(prompt: PromptIds, stops: Collection[int]) -> list[int]:
    """Cells up to and including each token that ends a message.

    Where a state cannot be cut back, prefill is split there too, and the last one is a place to go back to: what a
    template writes behind it, it may write otherwise when the answer is there.
    """
    return [index + 1 for index, token in enumerate(prompt.ids.tolist()) if token in stops]


class CellCache:
    """A decoder together with the knowledge of what its cache holds. Stays right when a call is interrupted.

    Where the decoder's state cannot be cut back, places are noted that it can go back to, with what is needed for it.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._keys: list[Key] = []
        self._marks: list[Mark] = []
        """In order; each is of the cells that are there."""
        self._owner: object = None

    def borders(self, prompt: PromptIds, stops: Collection[int]) -> list[int]:
        """Cell counts at which a prompt's prefill is split; ``stops`` are the token ids that end a message."""
        ends = [] if self.decoder.can_cut else message_ends(prompt, stops)
        return sorted({*picture_ends(prompt), *ends})

    def begin(self, keys: Sequence[Key], borders: Sequence[int] | None) -> tuple[object, int]:
        """Start a prompt: cut the cache back to what can be kept.

        Args:
            keys: Of the whole prompt.
            borders: Cell counts at which the cache may be cut; None allows any place outside a picture's tokens.

        Returns:
            A ticket for :meth:`prefill` and :meth:`step`, and the number of cells kept. At least one cell of the
            prompt is always left to compute, because its logits are needed.
        """
        common = self.kept(keys, borders)
        self._owner = object()
        self._go_back(common)
        return self._owner, common

    def kept(self, keys: Sequence[Key], borders: Sequence[int] | None) -> int:
        """How many cells :meth:`begin` would keep; nothing is changed."""
        # A speed probe that was interrupted leaves fewer cells than keys.
        common = _common_prefix(self._keys[: self.decoder.n_past], keys[:-1])
        if borders is not None:
            common = max((border for border in borders if border <= common), default=0)
        while 0 < common < len(keys) and isinstance(keys[common], tuple) and isinstance(keys[common - 1], tuple):
            common -= 1  # inside a picture's run of tokens
        if common < self.decoder.n_past and not self.decoder.can_cut:
            places = (mark.n_past for mark in self._marks if mark.n_past <= common)
            return max((place for place in places if borders is None or place in borders), default=0)
        return common

    def _go_back(self, count: int) -> None:
        """Forget every cell from ``count`` on, which :meth:`kept` gave."""
        marks = [mark for mark in self._marks if mark.n_past <= count]
        del self._keys[count:]
        self._marks = []
        if 0 < count < self.decoder.n_past and not self.decoder.can_cut:
            self.decoder.rewind(marks[-1])
        else:
            self.decoder.truncate(count)
        self._marks = marks
        if count and not self.decoder.can_cut:
            self._note_place()  # the end of a turn that is gone on with

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
        return logits

    def extend(self, ticket: object, tokens: Sequence[int]) -> FloatArray:
        """Append several tokens at once; return logits float32 [n, n_vocab] after each."""
        self._check(ticket)
        logits = self.decoder.prefill([Tokens(np.array(tokens, np.int64))], all_logits=True)
        self._keys.extend(tokens)
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
        del self._keys[len(self._keys) - count :]
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
        del self._keys[count:]
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
        self._keys, self._marks = [], []
        self.decoder.restore(state)
        self._keys = list(keys)
        if keys and not self.decoder.can_cut:
            self._note_place()

    def _check(self, ticket: object) -> None:
        if ticket is not self._owner:
            raise EngineError(
                "another answer was started with this model; finish one before the next, or load it twice"
            )


def _common_prefix(old: Sequence[Key], new: Sequence[Key]) -> int:
    for index, (before, now) in enumerate(zip(old, new, strict=False)):
        if before != now:
            return index
    return min(len(old), len(new))
