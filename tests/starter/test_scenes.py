"""The starter's scenes: what is asked agrees with what is drawn, and the held-out side shares nothing with training."""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np
import pytest

from starter import charmap, evaluate, fonts, palette, scenes, words
from starter.dialogs import Packer, make_example
from starter.make_tokenizer import IMAGE
from starter.pages import TRAINED_SHAPES, Page, to_canvas

pytestmark = pytest.mark.skipif(not fonts.has_both_sides(), reason="the fonts of the pages are not installed")
SEEDS = range(40)


def drawn(kind: str, heldout: bool = False, draw: bool = False) -> list[Page]:
    """Scenes of the first seeds."""
    return [scenes.make_scene(seed, kind, heldout, draw) for seed in SEEDS]


def printed(page: Page) -> list[str]:
    """The lines of a page without blanks."""
    return ["".join(char for char, _ in line) for line in charmap.places(page)]


@pytest.mark.parametrize("heldout", [False, True])
@pytest.mark.parametrize("kind", ["note", "bill"])
def test_answers_are_what_their_lines_print(kind: str, heldout: bool) -> None:
    for page in drawn(kind, heldout):
        lines = printed(page)
        for question in page.questions:
            assert question.answer.replace(" ", "") == "".join(lines[at] for at in question.lines)


@pytest.mark.parametrize("heldout", [False, True])
def test_totals_add_up(heldout: bool) -> None:
    seen = 0
    for page in drawn("bill", heldout):
        totals = {question.answer for question in page.questions if question.skill == "total"}
        prices = [q.answer for q in page.questions if q.skill == "row" and re.search(r"\d", q.answer)]
        assert len(totals) <= 1
        if totals and prices:
            assert sum(Decimal(price.lstrip("$€£")) for price in prices) == Decimal(totals.pop().lstrip("$€£"))
            seen += 1
    assert seen > 5


@pytest.mark.parametrize("kind", list(scenes.KINDS))
def test_a_seed_gives_one_scene(kind: str) -> None:
    first, again = (scenes.make_scene(7, kind, True) for _ in range(2))
    assert first.questions == again.questions
    assert np.array_equal(to_canvas(first.image), to_canvas(again.image))
    assert scenes.make_scene(8, kind, True).questions != first.questions


def test_every_shape_has_two_colours_that_training_never_shows() -> None:
    for heldout in (False, True):
        pairs = {
            (m.colour, m.shape) for kind in ("shapes", "heap") for page in drawn(kind, heldout) for m in page.marks
        }
        assert {palette.is_heldout_pair(*pair) for pair in pairs} == {heldout}
        assert {pair[1] for pair in pairs} == set(scenes.SHAPES if heldout else TRAINED_SHAPES)
    for shape in scenes.SHAPES:
        assert sum(palette.is_heldout_pair(colour, shape) for colour in palette.COLOURS) == 2


def test_words_and_layouts_are_on_their_side() -> None:
    for heldout in (False, True):
        for page in drawn("note", heldout):
            lines = [q.answer for q in page.questions if q.skill == "line"]
            assert {words.is_heldout(word) for line in lines for word in line.split()} == {heldout}
    layouts = [{page.layout for kind in scenes.KINDS for page in drawn(kind, heldout)} for heldout in (False, True)]
    assert layouts[1] - layouts[0] == {"poster", "invoice", "dialog"}


def test_counts_are_the_numbers_of_marks() -> None:
    for page in drawn("heap"):
        for question in page.questions:
            shape = next(shape for shape in TRAINED_SHAPES if scenes.scene_questions.plural(shape) in question.text)
            assert int(question.answer) == sum(mark.shape == shape for mark in page.marks)
            assert page.marks[question.mark].shape == shape


def test_marks_have_their_colour_on_the_canvas() -> None:
    known = palette.TRAINED_COLOURS
    for page in drawn("shapes", draw=True):
        canvas = to_canvas(page.image).astype(int)
        for mark in page.marks:
            hole = 0.8 * mark.radius if mark.shape == "ring" else 0
            found = canvas[int(mark.y), int(mark.x + hole)]
            nearest = min(known, key=lambda name: abs(found - np.array(known[name])).sum())
            assert nearest == mark.colour


@pytest.mark.parametrize("heldout", [False, True])
def test_points_lie_on_their_button(heldout: bool) -> None:
    """The name that is asked for stands in the middle of its button, where the answer points."""
    for page in drawn("form", heldout):
        wide, high = page.canvas
        for question in page.questions:
            assert re.fullmatch(r"\d\d,\d\d", question.answer)
            glyphs = [glyph for glyph in page.glyphs if glyph.line == question.lines[0]]
            assert "".join(glyph.char for glyph in glyphs).lower() == question.name.lower()
            x, y = (int(part) for part in question.answer.split(","))
            middle = 50 * (glyphs[0].left + glyphs[-1].right) / wide, 100 * glyphs[0].middle / high
            assert abs(x - middle[0]) <= 2.5 + 1.5
            assert abs(y - middle[1]) <= 2.5 + 1.5


def test_a_point_may_be_a_step_off() -> None:
    assert evaluate.is_right("point", "35,60", "40,55")
    assert not evaluate.is_right("point", "35,60", "45,60")
    assert not evaluate.is_right("point", "35,60", "35")
    assert not evaluate.is_right("count", "3", "4")


def test_training_is_told_to_look_at_what_the_answer_says() -> None:
    packer = Packer()

    def text(token: int) -> str:
        return packer.tokenizer.decode([int(token)]).strip().lower()

    for kind in ("note", "bill", "form"):
        for seed in SEEDS:
            example = make_example(seed, packer, kind=kind, draw=False)
            picture = np.flatnonzero(example.ids == packer.tokenizer.token_to_id(IMAGE))
            read = [{charmap.CHARS[code - 1].lower() for code in cell if code} for cell in example.cells.reshape(-1, 4)]
            shown = dict(zip(picture.tolist(), read, strict=True))
            for at in np.flatnonzero(example.asks >= 0):
                assert shown[int(example.asks[at])] & set(text(example.ids[at - 1]))
            if kind != "form":
                for at in np.flatnonzero(example.late >= 0):
                    assert shown[int(example.late[at])] & set(text(example.ids[at]))
                assert (example.late >= 0).sum() >= (example.labels >= 0).sum() / 2


def test_marks_are_ordered_within_their_shape() -> None:
    packer = Packer()
    for seed in SEEDS:
        page = scenes.make_scene(seed, "heap", draw=False)
        example = make_example(seed, packer, kind="heap", draw=False)
        thumbnail = example.ordinals[-36:]
        assert thumbnail.max() == max(sum(m.shape == shape for m in page.marks) for shape in TRAINED_SHAPES)
        looked = {int(token) for token in example.late[example.late >= 0]}
        picture = np.flatnonzero(example.ids == packer.tokenizer.token_to_id(IMAGE))
        assert looked <= set(picture[-36:].tolist())
        for at in np.flatnonzero(example.late >= 0):
            order = thumbnail[int(np.flatnonzero(picture[-36:] == example.late[at])[0])]
            assert packer.tokenizer.decode([int(example.ids[at])]).strip() == str(order)
