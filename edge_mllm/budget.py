"""How finely pictures may be tiled, decided from their sizes alone before any pixel is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from edge_mllm.errors import PromptError, SettingError
from edge_mllm.reduction.spec import TokenReduction, reduction_of
from edge_mllm.tile_plan import fit_tokens, low_detail, plan_tiles
from edge_mllm.tilers import Tiler

Detail = Literal["low", "auto", "high"]
Reduction = Literal["detail", "max_image_tokens", "max_memory", "max_ttft"]
"""The setting that made a picture's tiling coarser than the model's own."""


_STEP = 32
"""Limits are searched for in steps of this part of the visual tokens, or of one tile where that is more."""


@dataclass(frozen=True, kw_only=True)
class ImageBudget:
    """Limits on visual tokens.

    Raises:
        SettingError: A value is outside its range.
    """

    detail: Detail = "auto"
    """``low``: one tile a picture, or few tokens where there are no tiles. ``auto``: the model's own tiling, made
    coarser in the model's own way where ``max_image_tokens`` asks for it. ``high``: the model's own tiling or an
    error."""
    max_image_tokens: int | None = None
    """Most visual tokens of all pictures of one request together, before a reduction."""
    reduction: TokenReduction | None = None
    """Which of them go on to the decoder; None for all."""

    def __post_init__(self) -> None:
        if self.detail not in get_args(Detail):
            raise SettingError(f"detail is '{self.detail}'; it must be one of {', '.join(get_args(Detail))}")
        if self.max_image_tokens is not None and self.max_image_tokens < 1:
            raise SettingError(f"max_image_tokens is {self.max_image_tokens}; it must be at least 1")


def image_budget(detail: Detail, max_image_tokens: int | None, reduction: TokenReduction | str | None) -> ImageBudget:
    """A budget from a caller's options.

    Raises:
        SettingError: A value is outside its range.
    """
    return ImageBudget(detail=detail, max_image_tokens=max_image_tokens, reduction=reduction_of(reduction))


def choose_tilers(
    sizes: Sequence[tuple[int, int]], tiler: Tiler, tokens_per_tile: int, budget: ImageBudget
) -> list[Tiler]:
    """A tiler for each picture, so that all of them together keep the budget.

    Small pictures are served first and what they leave goes to the larger ones.

    Args:
        sizes: Width and height of each picture.
        tiler: The model's own.
        tokens_per_tile: Visual tokens of one tile.
        budget: The limits.

    Raises:
        PromptError: The budget cannot be kept.
    """
    chosen = [low_detail(tiler, *size) if budget.detail == "low" else tiler for size in sizes]
    if budget.max_image_tokens is None or not sizes:
        return chosen
    counts = _count(sizes, chosen, tokens_per_tile)
    if sum(counts) <= budget.max_image_tokens:
        return chosen
    if budget.detail == "auto":
        waiting = sorted(range(len(sizes)), key=counts.__getitem__)
        left = budget.max_image_tokens
        while waiting:
            index = waiting.pop(0)
            chosen[index] = fit_tokens(tiler, sizes[index], left // (len(waiting) + 1), tokens_per_tile)
            counts[index] = plan_tiles(*sizes[index], chosen[index]).tokens(tokens_per_tile)
            left -= counts[index]
        if left >= 0:
            return chosen
    raise PromptError(
        f"the pictures need at least {sum(counts)} visual tokens with detail '{budget.detail}', "
        f"max_image_tokens allows {budget.max_image_tokens}; allow more or use --detail low"
    )


def choose_within(
    sizes: Sequence[tuple[int, int]],
    tiler: Tiler,
    tokens_per_tile: int,
    budget: ImageBudget,
    broken: Callable[[Sequence[Tiler]], Reduction | None],
) -> list[tuple[Tiler, Reduction | None]]:
    """As :func:`choose_tilers`, then coarser until no limit is broken; with what made each picture's tiling coarser.

    With detail ``auto`` the finest choice that breaks no limit is taken, and the coarsest where all of them do. With
    other details nothing is changed.

    Args:
        sizes: Width and height of each picture.
        tiler: The model's own.
        tokens_per_tile: Visual tokens of one tile.
        budget: Limits on visual tokens.
        broken: Names the limit that a choice of tilers breaks.

    Raises:
        PromptError: The budget cannot be kept.
    """
    own = choose_tilers(sizes, tiler, tokens_per_tile, budget)
    asked: Reduction = "detail" if budget.detail == "low" else "max_image_tokens"
    reason = broken(own) if sizes and budget.detail == "auto" else None
    chosen, total = own, sum(_count(sizes, own, tokens_per_tile))
    coarsest = [fit_tokens(tiler, size, 1, tokens_per_tile) for size in sizes]
    least = sum(_count(sizes, coarsest, tokens_per_tile))
    while total > least and reason is not None and (chosen is own or broken(chosen) is not None):
        smaller = replace(budget, max_image_tokens=max(least, total - max(1, total // _STEP)))
        chosen = choose_tilers(sizes, tiler, tokens_per_tile, smaller)
        total = sum(_count(sizes, chosen, tokens_per_tile))
    return [
        (each, reason if each != before else asked if each != tiler else None)
        for each, before in zip(chosen, own, strict=True)
    ]


def _count(sizes: Sequence[tuple[int, int]], tilers: Sequence[Tiler], tokens_per_tile: int) -> list[int]:
    return [plan_tiles(*size, each).tokens(tokens_per_tile) for size, each in zip(sizes, tilers, strict=True)]
