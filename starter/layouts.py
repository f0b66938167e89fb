"""Kinds of pages: label, sign, receipt, screen for training, ticket held out; soup, text all over, for the tower."""

from __future__ import annotations

import random

from . import phrasings, words
from .pages import Page, Sheet, finish, measure, new_sheet, pick_font, put

SMALLEST, LARGEST = 20, 30


def fit(sheet: Sheet, text: str, font: str, room: float = 0.94, largest: int = LARGEST) -> int:
    """Pick a font size, in page pixels, at which the text fits the width and the letters suit the tiles."""
    size = sheet.rng.uniform(SMALLEST, largest) * sheet.scale
    width = measure(text, font, max(8, round(size)))[0]
    return max(8, int(size * min(1.0, room * sheet.width / max(width, 1))))


def place(sheet: Sheet, text: str, band: tuple[float, float], align: str, largest: int = LARGEST) -> None:
    """Print a text in a horizontal band of the page, given as fractions of its height."""
    font = pick_font(sheet)
    size = fit(sheet, text, font, largest=largest)
    width, caps = measure(text, font, size)
    spare = max(sheet.width - width, 0)
    edge = sheet.rng.uniform(0.02, 0.1) * spare
    left = {
        "left": edge,
        "right": spare - edge,
        "centre": spare * sheet.rng.uniform(0.45, 0.55),
        "any": spare * sheet.rng.uniform(0.02, 0.98),
    }[align]
    top, bottom = band[0] * sheet.height + caps + 2, band[1] * sheet.height - 0.3 * caps - 1
    baseline = sheet.rng.uniform(top, bottom) if bottom > top else (top + bottom) / 2
    put(sheet, text, left, baseline, size, font)


def border(sheet: Sheet, chance: float) -> None:
    """Sometimes frame the page."""
    if sheet.rng.random() < chance:
        inset = sheet.rng.uniform(0, 2.5) * sheet.scale
        box = (inset, inset, sheet.width - 1 - inset, sheet.height - 1 - inset)
        sheet.boxes.append((box, None, sheet.ink, max(1, round(sheet.rng.uniform(0.5, 2) * sheet.scale))))


def longest(sheet: Sheet) -> int:
    """Letters that fit a line of this page at the smallest size."""
    return 6 if sheet.width < sheet.height * 0.6 else 7


def _single(sheet: Sheet, text: str, skill: str) -> None:
    """One word or number somewhere on the page."""
    place(sheet, text, (0.02, 0.98), sheet.rng.choice(("centre", "left", "any")))
    sheet.questions = phrasings.about_single(sheet.rng, text, skill)


def label(sheet: Sheet, heldout: bool) -> None:
    """A shelf label: the article above, its price below; or only one word."""
    rng = sheet.rng
    border(sheet, 0.4)
    item, price = words.word(rng, heldout, longest(sheet)), words.price(rng, heldout)
    middle, align = rng.uniform(0.4, 0.6), rng.choice(("left", "centre", "any"))
    place(sheet, item, (0.02, middle), align)
    place(sheet, price, (middle, 0.98), rng.choice((align, "right")))
    sheet.questions = phrasings.about_item(rng, item, price)


def sign(sheet: Sheet, heldout: bool) -> None:
    """A sign: a word, a number, or a word with a number."""
    rng = sheet.rng
    border(sheet, 0.3)
    word, number = words.word(rng, heldout, longest(sheet)), words.number(rng, heldout)
    pick = rng.random()
    if pick < 0.45:
        _single(sheet, word, "word")
    elif pick < 0.75:
        _single(sheet, number, "number")
    else:
        if len(word) + len(number) < longest(sheet) + 2 and rng.random() < 0.5:
            place(sheet, f"{word} {number}", (0.02, 0.98), rng.choice(("centre", "any")))
        else:
            middle = rng.uniform(0.4, 0.6)
            place(sheet, word, (0.02, middle), "any")
            place(sheet, number, (middle, 0.98), "any")
        sheet.questions = phrasings.about_sign(rng, word, number)


def receipt(sheet: Sheet, heldout: bool) -> None:
    """A receipt: rows of an article at the left and its price at the right."""
    rng = sheet.rng
    rows = 1 if sheet.width < sheet.height or rng.random() < 0.96 else 2
    top, bottom = rng.uniform(0.02, 0.2), rng.uniform(0.8, 0.98)
    step, font = (bottom - top) / rows, pick_font(sheet)
    pairs: list[tuple[str, str]] = []
    for row in range(rows):
        narrow = sheet.width < sheet.height * 0.6
        item, price = words.word(rng, heldout, 4 if narrow else 7), words.price(rng, heldout)
        pairs.append((item, price))
        both = f"{item}  {price}"
        size = fit(sheet, both, font, 0.92, 26)
        caps = measure(both, font, size)[1]
        space = max(0.0, step * sheet.height - 1.4 * caps)
        baseline = (top + row * step) * sheet.height + caps + rng.random() * space
        put(sheet, item, 0.03 * sheet.width, baseline, size, font)
        put(sheet, price, 0.97 * sheet.width - measure(price, font, size)[0], baseline, size, font)
    sheet.questions = phrasings.about_rows(rng, pairs)


def screen(sheet: Sheet, heldout: bool) -> None:
    """A phone or till screen: a coloured bar and a word, number or article with price."""
    rng = sheet.rng
    bar = rng.uniform(0.05, 0.14)
    colour = tuple(rng.randrange(256) for _ in range(3))
    sheet.boxes.append(((0, 0, sheet.width, bar * sheet.height), colour, None, 0))
    pick = rng.random()
    if pick < 0.35:
        text = words.word(rng, heldout, longest(sheet))
        place(sheet, text, (bar + 0.02, 0.98), "centre")
        sheet.questions = phrasings.about_single(rng, text, "word")
    elif pick < 0.7:
        text = words.number(rng, heldout)
        place(sheet, text, (bar + 0.02, 0.98), "centre")
        sheet.questions = phrasings.about_single(rng, text, "number")
    else:
        item, price = words.word(rng, heldout, longest(sheet)), words.price(rng, heldout)
        middle = rng.uniform(0.48, 0.6)
        place(sheet, item, (bar + 0.02, middle), "centre", 28)
        place(sheet, price, (middle, 0.98), "centre")
        sheet.questions = phrasings.about_item(rng, item, price)


def ticket(sheet: Sheet, heldout: bool) -> None:
    """Held out: a band at the left edge and a rule in the middle, price or number above, word below."""
    rng = sheet.rng
    band = rng.uniform(0.01, 0.03) * sheet.width
    sheet.boxes.append(((0, 0, band, sheet.height), sheet.ink, None, 0))
    pick, middle = rng.random(), rng.uniform(0.42, 0.58)
    if pick < 0.5:
        text, skill = (
            (words.word(rng, heldout, longest(sheet)), "word")
            if pick < 0.25
            else (words.number(rng, heldout), "number")
        )
        place(sheet, text, (0.02, 0.98), "right")
        sheet.questions = phrasings.about_single(rng, text, skill)
        return
    y = middle * sheet.height
    sheet.boxes.append(((sheet.width * 0.1, y, sheet.width * 0.9, y + sheet.scale), sheet.ink, None, 0))
    item, price = words.word(rng, heldout, longest(sheet)), words.price(rng, heldout)
    place(sheet, price, (0.02, middle), "right")
    place(sheet, item, (middle, 0.98), "right")
    sheet.questions = phrasings.about_item(rng, item, price, price_first=True)


TRAIN_LAYOUTS = (label, sign, receipt, screen)
HELDOUT_LAYOUTS = (ticket,)


def make_page(seed: int, heldout: bool = False, draw: bool = True, layout=None, size=None) -> Page:
    """Make the page of a seed. Held-out pages use the other fonts, words and numbers, and one in four the ticket."""
    rng = random.Random(f"{'heldout' if heldout else 'train'}-{seed}")
    sheet = new_sheet(rng, heldout, size)
    kinds = TRAIN_LAYOUTS
    if heldout and rng.random() < 0.25:
        kinds = HELDOUT_LAYOUTS
    build = layout or rng.choice(kinds)
    sheet.layout = build.__name__
    build(sheet, heldout)
    return finish(sheet, draw)


def make_soup(seed: int) -> Page:
    """Fill a page with unrelated strings of many fonts and sizes: dense food for the tower."""
    rng = random.Random(f"soup-{seed}")
    sheet = new_sheet(rng, False)
    baseline = rng.uniform(-6, 12) * sheet.scale
    while baseline < sheet.height * 1.02:
        font = pick_font(sheet)
        size = max(8, round(rng.uniform(17, 30) * sheet.scale))
        caps = measure("H", font, size)[1]
        baseline += caps + rng.uniform(3, 14) * sheet.scale
        left = rng.uniform(-12, 20) * sheet.scale
        while left < sheet.width:
            kind = rng.random()
            text = (
                words.scramble(rng)
                if kind < 0.35
                else words.word(rng, False)
                if kind < 0.7
                else (words.number(rng, False) if kind < 0.8 else words.price(rng, False))
            )
            put(sheet, text, left, baseline, size, font)
            left += measure(text, font, size)[0] + rng.uniform(5, 22) * sheet.scale
        baseline += 0.25 * caps
    sheet.layout = "soup"
    return finish(sheet)
