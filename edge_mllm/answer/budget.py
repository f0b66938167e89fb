"""How finely pictures may be tiled, decided from their sizes alone before any pixel is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal, get_args

from edge_mllm.arguments import require, require_numbers
from edge_mllm.bundle.tilers import Tiler
from edge_mllm.errors import PromptError, SettingError
from edge_mllm.picture.reduction.spec import TokenReduction, reduction_of
from edge_mllm.picture.tile_plan import fit_tokens, low_detail, plan_tiles

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
    details: tuple[Detail, ...] = ()
    """The same for each picture by itself, in order; none where all have one."""
    max_image_tokens: int | None = None
    """Most visual tokens of all pictures of one request together, before a reduction."""
    reduction: TokenReduction | None = None
    """Which of them go on to the decoder; None for all."""

    def __post_init__(self) -> None:
        for detail in (self.detail, *self.details):
            if detail not in get_args(Detail):
                raise SettingError(f"detail is '{detail}'; it must be one of {', '.join(get_args(Detail))}")
        require_numbers(Integral, max_image_tokens=self.max_image_tokens)
        if self.max_image_tokens is not None and self.max_image_tokens < 1:
            raise SettingError(f"max_image_tokens is {self.max_image_tokens}; it must be at least 1")

    def details_of(self, pictures: int) -> tuple[Detail, ...]:
        """One for each of so many pictures.

        Raises:
            SettingError: There are details for another number of pictures.
        """
        if self.details and len(self.details) != pictures:
            raise SettingError(f"detail is given for {len(self.details)} pictures, and there are {pictures}")
        return self.details or (self.detail,) * pictures


def image_budget(
    detail: Detail | Sequence[Detail], max_image_tokens: int | None, reduction: TokenReduction | str | None
) -> ImageBudget:
    """A budget from a caller's options, which may have a detail for each picture.

    Raises:
        SettingError: A value is outside its range.
    """
    given: Any = detail
    require("detail", given, Sequence, "one of low, auto and high, or a list of them")
    own = () if isinstance(given, str) else tuple(given)
    common: Any = given if isinstance(given, str) else ImageBudget.detail
    return ImageBudget(detail=common, details=own, max_image_tokens=max_image_tokens, reduction=reduction_of(reduction))


def choose_tilers(
    sizes: Sequence[tuple[int, int]], tiler: Tiler, tokens_per_tile: int, budget: ImageBudget
) -> list[Tiler]:
    """A tiler for each picture, so that all of them together keep the budget.

    Small pictures are served first and what they leave goes to the larger ones, but every picture has what it needs at
    its coarsest.

    Args:
        sizes: Width and height of each picture.
        tiler: The model's own.
        tokens_per_tile: Visual tokens of one tile.
        budget: The limits.

    Raises:
        PromptError: The budget cannot be kept.
    """
    details = budget.details_of(len(sizes))
    chosen = [
        low_detail(tiler, *size) if detail == "low" else tiler for size, detail in zip(sizes, details, strict=True)
    ]
    if budget.max_image_tokens is None or not sizes:
        return chosen
    counts = _count(sizes, chosen, tokens_per_tile)
    if sum(counts) <= budget.max_image_tokens:
        return chosen
    if all(detail == "high" for detail in details):
        raise _too_few(sum(counts), budget, "allow more or use `detail='auto'`")
    coarsest = [
        each if detail == "high" else fit_tokens(each, size, 1, tokens_per_tile)
        for size, each, detail in zip(sizes, chosen, details, strict=True)
    ]
    least = _count(sizes, coarsest, tokens_per_tile)
    if sum(least) > budget.max_image_tokens:
        raise _too_few(sum(least), budget, "allow more or take fewer pictures")
    waiting, left = sorted(range(len(sizes)), key=counts.__getitem__), budget.max_image_tokens
    while waiting:
        index = waiting.pop(0)
        most = min(left // (len(waiting) + 1), left - sum(least[other] for other in waiting))
        if details[index] == "high" or most < least[index]:  # a long picture can need more than its share
            chosen[index], needed = coarsest[index], least[index]
        else:
            chosen[index] = fit_tokens(chosen[index], sizes[index], most, tokens_per_tile)
            needed = plan_tiles(*sizes[index], chosen[index]).tokens(tokens_per_tile)
        left -= needed
    return chosen


def _too_few(needed: int, budget: ImageBudget, advice: str) -> PromptError:
    """The error of a budget that cannot be kept."""
    detail = ", ".join(budget.details) or budget.detail
    return PromptError(
        f"the pictures need at least {needed} visual tokens with detail '{detail}', "
        f"max_image_tokens allows {budget.max_image_tokens}; {advice}"
    )


def choose_within(
    sizes: Sequence[tuple[int, int]],
    tiler: Tiler,
    tokens_per_tile: int,
    budget: ImageBudget,
    broken: Callable[[Sequence[Tiler]], Reduction | None] | None,
) -> list[tuple[Tiler, Reduction | None]]:
    """As :func:`choose_tilers`, then coarser until no limit is broken; with what made each picture's tiling coarser.

    With detail ``auto`` the finest choice that breaks no limit is taken, and the coarsest where all of them do. With
    other details nothing is changed, nor are pictures of detail ``high`` beside others of detail ``auto``.

    Args:
        sizes: Width and height of each picture.
        tiler: The model's own.
        tokens_per_tile: Visual tokens of one tile.
        budget: Limits on visual tokens.
        broken: Names the limit that a choice of tilers breaks; None where there are no further limits.

    Raises:
        PromptError: The budget cannot be kept.
    """
    own = choose_tilers(sizes, tiler, tokens_per_tile, budget)
    details = budget.details_of(len(sizes))
    asked: list[Reduction] = ["detail" if detail == "low" else "max_image_tokens" for detail in details]
    reason = broken(own) if broken is not None and "auto" in details else None
    if broken is None or reason is None:
        return [(each, why if each != tiler else None) for each, why in zip(own, asked, strict=True)]
    chosen, total = own, sum(_count(sizes, own, tokens_per_tile))
    coarsest = [
        fit_tokens(each, size, 1, tokens_per_tile) if detail == "auto" else each
        for size, each, detail in zip(sizes, own, details, strict=True)
    ]
    least = sum(_count(sizes, coarsest, tokens_per_tile))
    while total > least and (chosen is own or broken(chosen) is not None):
        smaller = replace(budget, max_image_tokens=max(least, total - max(1, total // _STEP)))
        chosen = choose_tilers(sizes, tiler, tokens_per_tile, smaller)
        total = sum(_count(sizes, chosen, tokens_per_tile))
    return [
        (each, reason if each != before else why if each != tiler else None)
        for each, before, why in zip(chosen, own, asked, strict=True)
    ]


def _count(sizes: Sequence[tuple[int, int]], tilers: Sequence[Tiler], tokens_per_tile: int) -> list[int]:
    return [plan_tiles(*size, each).tokens(tokens_per_tile) for size, each in zip(sizes, tilers, strict=True)]
