"""Positions on a canvas: every token's, marks included, are those of transformers' own function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_mllm.arrays import IntArray
from edge_mllm.bundle.spec import DecoderSpec
from edge_mllm.bundle.tilers import AdaptiveSlices
from edge_mllm.decoders.positions import PositionTrack
from edge_mllm.decoders.protocol import Tokens, Visual
from edge_mllm.decoders.segments import split_segments
from edge_mllm.errors import EngineError
from edge_mllm.picture.tile_plan import TilePlan, plan_tiles
from edge_mllm.prompt.build import PromptIds, Slot, thin_prompt
from edge_mllm.prompt.canvas import PictureTokens, canvas_places, spread

TILER = AdaptiveSlices(tile=448, patch=14, max_slices=9, merge=4)
PICTURE, OPEN, CLOSE, SLICE, UNSLICE, LINE, NUMBER = 90, 91, 92, 93, 94, 95, 96
MARKS = (OPEN, CLOSE, SLICE, UNSLICE, LINE)
SPEC = DecoderSpec(
    n_embd=8, n_vocab=100, n_layer=2, context_length=64, positions="canvas", mrope_sections=(2, 1, 1), state_layers=1
)


def written(plan: TilePlan) -> list[int]:
    """A picture's ids, as the processor of this mechanism writes them."""
    whole, *slices = plan.tile_tokens(1)
    ids = [OPEN, *[PICTURE] * whole, CLOSE]
    for number, count in enumerate(slices):
        ids += [LINE] * (number > 0 and number % plan.cols == 0) + [SLICE, *[PICTURE] * count, UNSLICE]
    return ids


def places_of(ids: list[int], plans: list[TilePlan]) -> IntArray:
    visual = np.flatnonzero(np.array(ids) == PICTURE)
    parts = np.split(visual, np.cumsum([plan.tokens(1) for plan in plans])[:-1])
    tokens = [PictureTokens(plan, part) for plan, part in zip(plans, parts, strict=True)]
    return canvas_places(np.array(ids, np.int64), tokens, MARKS)


@pytest.fixture(scope="module")
def reference() -> Any:
    """Positions [3, n] and what follows them, by the class that has this mechanism."""
    import torch
    from transformers import MiniCPMV4_7Config
    from transformers.models.minicpmv4_7.modeling_minicpmv4_7 import MiniCPMV4_7Model

    named = {"image_start_id": OPEN, "image_end_id": CLOSE, "slice_start_id": SLICE, "slice_end_id": UNSLICE}
    config = MiniCPMV4_7Config(
        text_config={"hidden_size": 16, "num_hidden_layers": 1, "layer_types": ["full_attention"], "vocab_size": 100},
        vision_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
        image_token_id=PICTURE,
        newline_id=LINE,
        insert_layer_id=0,
        **named,
    )
    with torch.device("meta"):
        model = MiniCPMV4_7Model(config)

    def positions(ids: list[int], plans: list[TilePlan]) -> tuple[Any, int]:
        sizes = [(rows * 4, cols * 4) for plan in plans for rows, cols in plan.token_grids or ()]
        kinds = torch.tensor([[int(token == PICTURE) for token in ids]])
        found, delta = model.get_rope_index(torch.tensor([ids]), kinds, torch.tensor(sizes))
        return found[:, 0].numpy(), len(ids) + int(delta)

    return positions


def check(reference: Any, ids: list[int], plans: list[TilePlan]) -> None:
    expected, following = reference(ids, plans)
    found = places_of(ids, plans)
    np.testing.assert_array_equal(found[:3], expected)
    assert found[3, -1] == following


SIZES = [(300, 300), (1080, 2400), (2400, 1080), (1344, 1344), (4000, 60), (60, 4000), (900, 450), (450, 900), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_one_picture_equals_the_reference(reference: Any, size: tuple[int, int]) -> None:
    plan = plan_tiles(*size, TILER)
    for behind in ([5, 6], [LINE, 5], [LINE, LINE, CLOSE, 5], [SLICE, 5], []):
        for before in ([1, 2, 3], [NUMBER], []):
            check(reference, [*before, *written(plan), *behind], [plan])


def test_many_pictures_equal_the_reference(reference: Any) -> None:
    """With text, marks, or nothing between them."""
    draw = np.random.default_rng(0)
    for _ in range(60):
        ids, plans = [1, 2], []
        for _ in range(int(draw.integers(1, 5))):
            width, height = (int(side) for side in np.exp(draw.uniform(1.5, 8, 2)))
            plans.append(plan_tiles(width, height, TILER))
            ids += written(plans[-1])
            ids += [int(each) for each in draw.choice([*MARKS, 5, 6, NUMBER], draw.integers(0, 4))]
        check(reference, ids, plans)


def test_whole_numbers_are_spread_as_torch_spreads_them() -> None:
    """Also where a half is rounded the other way than an exact one: seven of fourteen steps to 117, say."""
    import torch

    for count in range(1, 80):
        for length in [*range(1, 130), 236, 242, 462, 490]:
            expected = torch.linspace(0, length - 1, count).round().long().numpy()
            np.testing.assert_array_equal(spread(length, count), expected)
    assert spread(118, 15)[7] == 59 and spread(116, 15)[7] == 58


def test_marks_stand_at_corners() -> None:
    plan = plan_tiles(1080, 700, TILER)
    assert (plan.rows, plan.cols, plan.token_grids) == (2, 2, ((6, 10), *[(6, 10)] * 4))
    ids = [1, *written(plan), LINE, 5]
    found = places_of(ids, [plan])
    at = {name: np.flatnonzero(np.array(ids) == name) for name in MARKS}
    assert found[:3, at[OPEN][0]].tolist() == [1, 0, 0]
    assert found[:3, at[CLOSE][0]].tolist() == [1, 1 + 12, 1 + 20]
    assert [found[1:3, place].tolist() for place in at[SLICE]] == [[1, 1], [1, 11], [7, 1], [7, 11]]
    assert [found[1:3, place].tolist() for place in at[UNSLICE]] == [[6, 10], [6, 20], [12, 10], [12, 20]]
    assert [found[1:3, place].tolist() for place in at[LINE]] == [[6, 21], [1, 1]]
    assert found[3].tolist() == [1] + [1 + 20 + 1] * (len(ids) - 2) + [23]


def test_what_is_left_keeps_its_positions() -> None:
    """Of a picture without some of its tokens, and of one without some of its slices."""
    plan = plan_tiles(1080, 700, TILER)
    ids = np.array([1, *written(plan), 5], np.int64)
    visual = np.flatnonzero(ids == PICTURE)
    slot = Slot(int(visual[0]), int(visual[-1] + 1 - visual[0]), len(visual))
    prompt = PromptIds(ids=ids, slots=(slot,), image_token_id=PICTURE, text="", places=places_of(ids.tolist(), [plan]))
    kept = np.arange(3, len(visual), 7)
    thin = thin_prompt(prompt, [kept])
    assert thin.places is not None and prompt.places is not None
    np.testing.assert_array_equal(thin.places[:, thin.ids == PICTURE], prompt.places[:, visual[kept]])
    assert thin.places[:, -1].tolist() == prompt.places[:, -1].tolist()
    fewer = replace(plan, skipped=(1, 2))
    left = [1, OPEN, *[PICTURE] * 60, CLOSE, SLICE, *[PICTURE] * 60, UNSLICE, LINE, SLICE, *[PICTURE] * 60, UNSLICE, 5]
    found, starts = places_of(left, [fewer]), np.flatnonzero(ids == SLICE)
    for number, place in zip((0, 3), np.flatnonzero(np.array(left) == SLICE), strict=True):
        own = slice(starts[number], starts[number] + 62)
        np.testing.assert_array_equal(found[:, place : place + 62], prompt.places[:, own])


def test_a_track_takes_positions_as_they_are_given() -> None:
    plan = plan_tiles(300, 300, TILER)
    ids = [1, 2, *written(plan), 5]
    places = places_of(ids, [plan])
    rest = np.zeros((64, 8), np.float32)
    segments = [Tokens(np.array([1, 2, OPEN]), places[:, :3]), Visual(rest, places=places[:, 3:67])]
    segments.append(Tokens(np.array(ids[67:]), places[:, 67:]))
    for borders in ([], [3, 67], [40], [68]):
        track = PositionTrack(SPEC)
        for group in split_segments(segments, 0, borders):
            for placed in track.place(group):
                start = len(track)
                np.testing.assert_array_equal(placed.positions, places[:3, start : start + len(placed.after)])
                track.extend(placed.after)
        assert track.next == places[3, -1]
        assert track.place([Tokens(np.array([7, 8]))])[0].positions.tolist() == [[track.next, track.next + 1]] * 3
    with pytest.raises(EngineError, match="need their places on its canvas"):
        PositionTrack(SPEC).place([Visual(rest)])
    with pytest.raises(EngineError, match=r"positions of 3 tokens must be \[4, 3\] here, got \[3, 3\]"):
        PositionTrack(SPEC).place([Tokens(np.array([1, 2, 3]), places[:3, :3])])
