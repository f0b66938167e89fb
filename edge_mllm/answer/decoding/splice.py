"""Token ids and visual embeddings to the segments a decoder takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.decoders.protocol import Segment, Tokens, Visual
from edge_mllm.errors import PromptError
from edge_mllm.prompt.build import PromptIds


def splice(
    prompt: PromptIds,
    embeddings: Sequence[FloatArray],
    row_width: int,
    grids: Sequence[tuple[int, int] | None] | None = None,
    kept: Sequence[IntArray | None] | None = None,
) -> list[Segment]:
    """Put each picture's embeddings where its image tokens are.

    Every unbroken run of image tokens becomes one :class:`Visual`, so tiles with marker tokens between them stay
    apart; a run never crosses from one picture into the next.

    Args:
        prompt: What :func:`edge_mllm.prompt.build.build_prompt` gave.
        embeddings: Per picture float32 [visual tokens, row_width].
        row_width: Width of the decoder's rows.
        grids: Per picture (rows, columns) of visual tokens for 2-D position schemes; such a picture is one run.
        kept: Per picture the places of its tokens in that grid, where not all are there.

    Raises:
        PromptError: Counts or widths do not match.
    """
    grids = grids if grids is not None else [None] * len(embeddings)
    kept = kept if kept is not None else [None] * len(embeddings)
    _check(prompt, embeddings, row_width, grids, kept)
    segments: list[Segment] = []
    done = 0
    for slot, rows, grid, places in zip(prompt.slots, embeddings, grids, kept, strict=True):
        _add_tokens(segments, prompt, done, slot.start)
        done = slot.start + slot.length
        picture = Visual(rows) if grid is None else Visual(rows, grid, places)
        _add_picture(segments, prompt, slice(slot.start, done), picture)
    _add_tokens(segments, prompt, done, len(prompt.ids))
    return segments


def _add_tokens(segments: list[Segment], prompt: PromptIds, start: int, end: int) -> None:
    if end > start:
        segments.append(Tokens(prompt.ids[start:end], _places(prompt, start, end)))


def _places(prompt: PromptIds, start: int, end: int) -> IntArray | None:
    return None if prompt.places is None else prompt.places[:, start:end]


def _add_picture(segments: list[Segment], prompt: PromptIds, span: slice, picture: Visual) -> None:
    visual = prompt.ids[span] == prompt.image_token_id
    edges = np.flatnonzero(np.diff(visual)) + 1
    used = 0
    for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(visual)], strict=True):
        if visual[start]:
            rows, places = (
                picture.embeddings[used : used + end - start],
                _places(prompt, span.start + start, span.start + end),
            )
            segments.append(replace(picture, embeddings=rows, places=places))
            used += end - start
        else:
            _add_tokens(segments, prompt, span.start + start, span.start + end)


def _check(
    prompt: PromptIds,
    embeddings: Sequence[FloatArray],
    row_width: int,
    grids: Sequence[tuple[int, int] | None],
    kept: Sequence[IntArray | None],
) -> None:
    if not len(prompt.slots) == len(embeddings) == len(grids):
        raise PromptError(f"the prompt has {len(prompt.slots)} pictures, embeddings are given for {len(embeddings)}")
    for number, (slot, rows, grid, places) in enumerate(zip(prompt.slots, embeddings, grids, kept, strict=True), 1):
        if rows.shape != (slot.visual, row_width) or rows.dtype != np.float32:
            raise PromptError(
                f"picture {number} needs float32 embeddings [{slot.visual}, {row_width}], "
                f"got {rows.dtype} {list(rows.shape)}"
            )
        whole = 0 if grid is None else grid[0] * grid[1] if places is None else len(places)
        if grid is not None and (whole != slot.visual or slot.length != slot.visual):
            raise PromptError(f"picture {number} has {slot.visual} visual tokens, which are no grid of {grid}")
