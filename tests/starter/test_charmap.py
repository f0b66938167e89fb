"""The starter's training targets: which visual token shows which character, and where each answer's token must look."""

from __future__ import annotations

import numpy as np
import pytest

from starter import charmap
from starter.dialogs import Packer, Shown, image_text
from starter.make_tokenizer import IMAGE, START
from starter.model import TOKENS
from starter.pages import Glyph, Page, Question


def printed(text: str, line: int, left: float, middle: float, pitch: float = 16.0) -> list[Glyph]:
    """Print a line with letters of a fixed pitch, each 8 wide and 12 high, centred on `left + pitch * n`."""
    return [
        Glyph(char, x - 4, middle - 6, x + 4, middle + 6, middle, line)
        for char, x in ((char, left + pitch * at) for at, char in enumerate(text))
        if char != " "
    ]


@pytest.fixture
def page() -> Page:
    """A canvas of two tiles side by side: SCREEN crosses from the first into the second, its price below it."""
    glyphs = printed("SCREEN", 0, 56, 24) + printed("$4.60", 1, 8, 72)
    return Page(None, (192, 96), tuple(glyphs), (), "made for this test")


def test_characters_of_a_line_walk_over_the_border_of_tiles(page: Page) -> None:
    screen, price = charmap.places(page)
    assert "".join(char for char, _ in screen) == "SCREEN"
    row = 6 * 1
    assert [token for _, token in screen] == [
        row + 3,
        row + 4,
        row + 5,
        TOKENS + row,
        TOKENS + row + 1,
        TOKENS + row + 2,
    ]
    assert [token for _, token in price] == [24, 25, 26, 27, 28]


def test_places_agree_with_the_cells(page: Page) -> None:
    cells = charmap.targets(page)[1].reshape(-1, charmap.SLOTS)
    for char, token in (pair for line in charmap.places(page) for pair in line):
        assert charmap.CODE[char] in cells[token]
    assert np.count_nonzero(cells) == len(page.glyphs)


def test_ordinals_count_within_a_line(page: Page) -> None:
    lines = charmap.places(page)
    ordinals = charmap.ordinals(lines, 2 * TOKENS)
    assert [ordinals[token] for _, token in lines[0]] == [1, 2, 3, 4, 5, 6]
    assert np.count_nonzero(ordinals) == len(page.glyphs)
    crowded = [[("a", 3), ("b", 3), ("c", 4)]]
    assert charmap.ordinals(crowded, 6).tolist() == [0, 0, 0, 1, 3, 0]


def test_both_equal_letters_have_their_own_spot(page: Page) -> None:
    packer = Packer()
    questions = [[Question("item", "What is for sale?", "SCREEN")], [Question("all", "Read this.", "SCREEN $4.60")]]
    columns = packer.pack(f"{START}User:" + image_text(1, 2), questions, Shown(charmap.places(page), []))
    picture = np.flatnonzero(columns["ids"] == packer.tokenizer.token_to_id(IMAGE))
    shown = {at: char for line in charmap.places(page) for char, token in line for at in [int(picture[token])]}
    for segment, answer in ((1, "SCREEN"), (2, "SCREEN$4.60")):
        here = columns["segments"] == segment
        spots = [int(spot) for spot in columns["spots"][here] if spot >= 0]
        assert "".join(shown[spot] for spot in spots) == answer
        assert len(set(spots)) == len(spots)
        said = columns["ids"][here][columns["spots"][here] >= 0]
        assert "".join(packer.tokenizer.decode([int(token)]) for token in said) == answer


def test_a_whole_line_wins_over_a_part_of_another() -> None:
    lines = [[("1", 0), ("5", 1)], [("5", 9)]]
    assert charmap.spots("5", [(0, 1)], lines) == [9]
    assert charmap.spots("x", [(0, 1)], lines) == [-1]
