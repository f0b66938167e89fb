"""Which visual tokens of a picture stay, and what the decoder gets of them.

The tokens that stay keep their order, and where a position scheme counts rows and columns also their places. Line ends
of stitched pictures always stay. One share for a whole picture lets crowded tiles have more than empty ones; with the
same share for every tile the prompt is known before the picture is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_mllm.arrays import FloatArray, IntArray
from edge_mllm.picture.reduction.areas import TokenArea
from edge_mllm.picture.reduction.diversity import Values, determinantal, farthest_points, relevance, unit_rows
from edge_mllm.picture.reduction.pooling import centres, pool
from edge_mllm.picture.reduction.spec import TokenReduction, share


def kept_tokens(
    reduction: TokenReduction,
    areas: Sequence[TokenArea],
    rows: FloatArray | None = None,
    query: FloatArray | None = None,
) -> IntArray:
    """Places of the tokens that stay, ascending int64 [reduction.count(areas)].

    For averages that is the token in the middle of what was averaged.

    Args:
        reduction: One that thins.
        areas: How the picture's tokens lie.
        rows: Its embeddings float32 [tokens, n_embd], where the reduction needs them.
        query: Token embeddings of the question float32 [m, n_embd], where it needs them.
    """
    if reduction.method == "pool":
        return _each_area(areas, [centres(area, area.pooled(reduction.ratio)) for area in areas])
    content = [content_places(area) for area in areas]
    starts = np.cumsum([0, *(area.tokens for area in areas[:-1])])
    if reduction.needs_rows:
        assert rows is not None  # noqa: S101  (the caller looks at needs_rows)
        places = np.concatenate([part + start for part, start in zip(content, starts, strict=True)])
        unit = unit_rows(rows[places])
        weights = None if query is None else relevance(unit, query)
        sizes = [len(places)] if reduction.per_picture else [len(part) for part in content]
        chosen = places[_distinct(reduction, sizes, unit, weights)]
    else:
        draw = np.random.default_rng(reduction.seed)
        picked = [part[_blind(reduction, len(part), draw)] for part in content]
        chosen = _each_area(areas, picked)
    ends = _each_area(areas, [np.setdiff1d(np.arange(area.tokens), content_places(area)) for area in areas])
    return np.sort(np.concatenate([chosen, ends])).astype(np.int64)


def thin_rows(reduction: TokenReduction, areas: Sequence[TokenArea], rows: FloatArray, kept: IntArray) -> FloatArray:
    """What the decoder gets: float32 [kept, row_width].

    Args:
        reduction: One that thins.
        areas: How the picture's tokens lie.
        rows: Its embeddings float32 [tokens, row_width].
        kept: From :func:`kept_tokens`.
    """
    if reduction.method != "pool":
        return rows[kept]
    parts = np.split(rows, np.cumsum([area.tokens for area in areas[:-1]]))
    return np.concatenate(
        [pool(part, area, area.pooled(reduction.ratio)) for part, area in zip(parts, areas, strict=True)]
    )


def content_places(area: TokenArea) -> IntArray:
    """Places of an area's tokens that are no line ends, int64 [area.content]."""
    return np.arange(area.tokens, dtype=np.int64).reshape(area.rows, area.width)[:, : area.cols].reshape(-1)


def _blind(reduction: TokenReduction, count: int, draw: np.random.Generator) -> IntArray:
    """Without a look at the embeddings."""
    wanted = share(count, reduction.ratio)
    if reduction.method == "random":
        return np.sort(draw.permutation(count)[:wanted])
    return ((2 * np.arange(wanted) + 1) * count) // (2 * wanted) if wanted else np.arange(0)


def _distinct(reduction: TokenReduction, sizes: Sequence[int], unit: Values, weights: Values | None) -> IntArray:
    """By the embeddings, within each group of so many tokens."""
    found: list[IntArray] = []
    start = 0
    for size in sizes:
        group = slice(start, start + size)
        wanted = share(size, reduction.ratio)
        if wanted and weights is None:
            found.append(start + farthest_points(unit[group], wanted))
        elif wanted and weights is not None:
            found.append(start + determinantal(unit[group], weights[group], wanted))
        start += size
    return np.concatenate(found)


def _each_area(areas: Sequence[TokenArea], places: Sequence[IntArray]) -> IntArray:
    """Places within each area as places within the picture."""
    starts = np.cumsum([0, *(area.tokens for area in areas[:-1])])
    return np.concatenate([part + start for part, start in zip(places, starts, strict=True)]).astype(np.int64)
