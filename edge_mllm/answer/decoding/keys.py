"""What each cell of a prompt holds, and where a prompt's prefill is split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.decoders.segments import TEXT
from edge_mllm.prompt.build import PromptIds

Key = int | tuple[bytes, int]
"""What a cell holds: a token id, or a picture's digest with the number of the visual token in it."""


Wait = Callable[[bytes, int], None]
"""Waits until the picture of a digest has its first so many rows."""


@dataclass(frozen=True)
class PictureRows:
    """Rows of a prompt's pictures that are not in the cache, float32 [visual tokens, row_width] by digest."""

    rows: Mapping[bytes, FloatArray] = field(default_factory=dict)
    wait: Wait | None = None
    """Called before rows are read, where they are still on their way."""

    def row(self, digest: bytes, number: int) -> FloatArray | None:
        """One row [row_width], when it is there; None of pictures that are not among them."""
        found = self.rows.get(digest)
        if found is not None and self.wait is not None:
            self.wait(digest, number + 1)
        return None if found is None else found[number]


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


def block_numbers(keys: Sequence[Key]) -> IntArray:
    """int64 [n]: for each cell the number of the unbroken run of a picture's tokens that it is in, TEXT for text."""
    numbers, block = np.full(len(keys), TEXT, np.int64), TEXT
    before: Key = TEXT
    for index, key in enumerate(keys):
        if isinstance(key, tuple):
            block += not isinstance(before, tuple) or (before[0], before[1] + 1) != key
            numbers[index] = block
        before = key
    return numbers
