"""How a picture was cut, for clients that draw it: a box in the picture's own pixels for every tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_mllm.answer.pictures.bundle_picture import PicturePart
from edge_mllm.answer.pictures.picture import ConversationPicture
from edge_mllm.picture.tile_plan import Box, Resize, TilePlan


def tilings(pictures: Sequence[ConversationPicture]) -> list[dict[str, Any] | None]:
    """A JSON object for each picture; None where only its engine knows how it is cut."""
    return [_tiling(each) if isinstance(each, PicturePart) else None for each in pictures]


def _tiling(picture: PicturePart) -> dict[str, Any]:
    plan = picture.plan
    return {
        "rows": plan.rows,
        "columns": plan.cols,
        "overview": plan.has_global,
        "overview_first": plan.has_global and plan.global_first,
        "tokens_per_tile": _tokens_per_tile(picture),
        "token_grid": plan.token_grid,
        "boxes": [_in_picture(plan, box) for place, box in enumerate(plan.crops) if place not in plan.skipped],
    }


def _tokens_per_tile(picture: PicturePart) -> int | None:
    """Visual tokens of each tile after a reduction; None where they are the whole picture's, or tiles differ."""
    plan, areas, reduction = picture.plan, picture.areas, picture.reduction
    whole = plan.token_grid is not None or plan.stitch is not None
    if whole or len({area.tokens for area in areas}) > 1:
        return None
    if reduction is None or not reduction.thins:
        return areas[0].tokens
    return None if reduction.per_picture else reduction.count(areas[:1])


def _in_picture(plan: TilePlan, box: Box) -> list[float]:
    """A box of the canvas as left, top, right and bottom in the picture, as far as the picture reaches."""
    sizes = [(plan.width, plan.height), *((step.width, step.height) for step in plan.steps)]
    edges = [float(edge) for edge in box]
    for step, (width, height) in zip(reversed(plan.steps), reversed(sizes[:-1]), strict=True):
        for place, edge in enumerate(edges):
            if isinstance(step, Resize):
                edges[place] = edge * (height / step.height if place % 2 else width / step.width)
            else:
                edges[place] = edge - (step.top if place % 2 else step.left)
    most = (plan.width, plan.height)
    return [round(min(max(edge, 0.0), most[place % 2]), 2) for place, edge in enumerate(edges)]
