"""Pages that show more than one thing: notes, bills, coloured shapes and forms with buttons; three layouts held out.

A scene is drawn like a page (`layouts.py`), from its seed and its side of the split. Held-out scenes have other fonts,
words, numbers and prices, colours and shapes in pairs that training never shows, and one in three of those with text
has a layout of its own: `poster` for notes, `invoice` for bills, `dialog` for forms.
"""

from __future__ import annotations

import random

from . import scene_questions, words
from .layouts import border, fit, longest, place
from .pages import (
    SHAPES,
    SIZES,
    TILE,
    TRAINED_SHAPES,
    Mark,
    Page,
    Sheet,
    canvas_size,
    finish,
    measure,
    new_sheet,
    pick_font,
    put,
)
from .palette import COLOURS, TRAINED_COLOURS, is_heldout_pair

WIDE, TALL, LARGE = SIZES[:6], SIZES[6:9], SIZES[9:]
TOTALS = ("TOTAL", "TOTAL", "Total", "Total", "total", "SUM", "Sum")
PAID = ("CASH", "Cash", "CARD", "Card", "PAID")


def _lines_of(sheet: Sheet) -> int:
    """Lines of readable text that fit below each other: three on one row of tiles, five on two."""
    return 3 if canvas_size(sheet.width, sheet.height)[1][1] == TILE else 5


def _note_texts(sheet: Sheet, heldout: bool, count: int) -> list[str]:
    """Make different lines: words, numbers, and words with a number."""
    rng, texts = sheet.rng, []
    while len(texts) < count:
        pick, room = rng.random(), longest(sheet)
        text = words.word(rng, heldout, room) if pick < 0.75 else words.number(rng, heldout)
        if pick < 0.15:
            text = f"{words.word(rng, heldout, room - 3)} {words.number(rng, heldout, 2)}"
        if text.lower() not in (other.lower() for other in texts):
            texts.append(text)
    return texts


def note(sheet: Sheet, heldout: bool, aligns: tuple[str, ...] = ("left", "left", "centre", "any")) -> None:
    """Two to four lines of text below each other."""
    rng = sheet.rng
    border(sheet, 0.3)
    count = rng.choice((2, 2, 3)) if _lines_of(sheet) == 3 else rng.choice((2, 3, 3, 4))
    texts, align = _note_texts(sheet, heldout, count), rng.choice(aligns)
    top, bottom = rng.uniform(0.0, 0.08), rng.uniform(0.92, 1.0)
    step = (bottom - top) / count
    for at, text in enumerate(texts):
        place(sheet, text, (top + at * step, top + (at + 1) * step), align, 26 if count < 3 else 23)
    sheet.questions = scene_questions.about_lines(rng, texts)


def poster(sheet: Sheet, heldout: bool) -> None:
    """Held out: a note whose lines end at the right, with a bar at the left."""
    sheet.boxes.append(((0, 0, 0.03 * sheet.width, sheet.height), sheet.ink, None, 0))
    note(sheet, heldout, ("right",))


def _bill_rows(sheet: Sheet, heldout: bool, count: int) -> tuple[list[tuple[str, str]], str, str]:
    """Make articles with prices whose sum is on the same side of the split; return rows, total and currency sign."""
    rng = sheet.rng
    sign = rng.choice(words.CURRENCIES)
    while True:
        prices = [words.price(rng, heldout).lstrip("$€£") for _ in range(count)]
        cents = sum(int(price.replace(".", "")) for price in prices)
        total = f"{cents // 100}.{cents % 100:02d}"
        fresh = len({*prices, total}) == count + 1 or (count == 1 and prices[0] == total)
        if cents < 10000 and words.is_heldout(total) == heldout and fresh:
            break
    names: list[str] = []
    while len(names) < count:
        name = words.word(rng, heldout, 6)
        if name.lower() not in ("total", "sum", "cash", "card", *(other.lower() for other in names)):
            names.append(name)
    return [(name, sign + price) for name, price in zip(names, prices, strict=True)], sign + total, sign


def _print_rows(sheet: Sheet, rows: list[tuple[str, str]], font: str, band: tuple[float, float]) -> None:
    """Print texts at the left and prices at the right, in rows of one height."""
    rng = sheet.rng
    step = (band[1] - band[0]) * sheet.height / len(rows)
    size = min(fit(sheet, f"{left}  {right}", font, 0.92, 24) for left, right in rows)
    for at, (left, right) in enumerate(rows):
        caps = measure(left, font, size)[1]
        space = max(0.0, step - 1.4 * caps)
        baseline = band[0] * sheet.height + at * step + caps + rng.uniform(0.2, 0.8) * space
        put(sheet, left, 0.03 * sheet.width, baseline, size, font)
        put(sheet, right, 0.97 * sheet.width - measure(right, font, size)[0], baseline, size, font)


def _rule(sheet: Sheet, y: float) -> None:
    """Draw a thin line across the page, `y` in fractions of its height."""
    box = (0.03 * sheet.width, y * sheet.height, 0.97 * sheet.width, y * sheet.height + max(1.0, 0.7 * sheet.scale))
    sheet.boxes.append((box, sheet.ink, None, 0))


def bill(sheet: Sheet, heldout: bool) -> None:
    """A receipt: articles with prices, mostly with their total below, and what was paid below that."""
    rng = sheet.rng
    most = _lines_of(sheet)
    with_total = rng.random() < 0.8
    count = rng.randint(1, most - 1) if with_total else rng.randint(2, min(most, 4))
    rows, total, sign = _bill_rows(sheet, heldout, min(count, 3))
    printed = list(rows)
    if with_total:
        printed.append((rng.choice(TOTALS), total))
        if len(printed) < most and rng.random() < 0.25:
            printed.append((rng.choice(PAID), f"{sign}{rng.randint(100, 200)}.00"))
    top, bottom = rng.uniform(0.0, 0.1), rng.uniform(0.9, 1.0)
    if with_total and rng.random() < 0.3:
        _rule(sheet, top + (bottom - top) * len(rows) / len(printed))
    _print_rows(sheet, printed, pick_font(sheet), (top, bottom))
    sheet.questions = scene_questions.about_rows(rng, rows) if len(rows) > 1 else []
    if with_total:
        sheet.questions += [scene_questions.about_total(rng, total, 2 * len(rows) + 1) for _ in range(2)]


def invoice(sheet: Sheet, heldout: bool) -> None:
    """Held out: the total stands above the articles, below a dark band."""
    rng = sheet.rng
    count = rng.randint(1, _lines_of(sheet) - 1)
    rows, total, _ = _bill_rows(sheet, heldout, min(count, 3))
    sheet.boxes.append(((0, 0, sheet.width, 0.04 * sheet.height), sheet.ink, None, 0))
    printed = [(rng.choice(TOTALS), total), *rows]
    _print_rows(sheet, printed, pick_font(sheet), (0.05, 0.99))
    _rule(sheet, 0.05 + 0.94 / len(printed))
    sheet.questions = scene_questions.about_rows(rng, rows, 2) if len(rows) > 1 else []
    sheet.questions.append(scene_questions.about_total(rng, total, 1))


def _plain_paper(sheet: Sheet) -> None:
    """Use a light or a dark grey paper, on which every colour shows; no tilt."""
    level = sheet.rng.randint(215, 255) if sheet.rng.random() < 0.75 else sheet.rng.randint(0, 40)
    sheet.paper, sheet.angle = (level, level, level), 0.0


def _scatter(sheet: Sheet, count: int, radii: tuple[float, float]) -> list[tuple[float, float, float]]:
    """Find centres and radii, in page pixels, of marks that do not touch, in the order of the thumbnail's tokens."""
    rng = sheet.rng
    while True:
        found: list[tuple[float, float, float]] = []
        shrink = 1.0
        for _ in range(60 * count):
            shrink *= 0.998
            r = max(10.0, rng.uniform(*radii) * shrink) * sheet.scale
            x, y = rng.uniform(1.2 * r, sheet.width - 1.2 * r), rng.uniform(1.2 * r, sheet.height - 1.2 * r)
            if all((x - a) ** 2 + (y - b) ** 2 > (1.25 * (r + c)) ** 2 for a, b, c in found):
                found.append((x, y, r))
            if len(found) == count:
                return sorted(found, key=lambda at: (int(6 * at[1] / sheet.height), at[0]))


def _fill(rng: random.Random, colour: str) -> tuple[int, int, int]:
    """Vary a colour a little."""
    red, green, blue = (min(255, max(0, part + rng.randint(-14, 14))) for part in TRAINED_COLOURS[colour])
    return red, green, blue


def _pairs(rng: random.Random, heldout: bool, shapes: list[str]) -> list[tuple[str, str]]:
    """Give every shape a colour of its side of the split, all different."""
    known = COLOURS if heldout else TRAINED_COLOURS
    while True:
        colours = [rng.choice([c for c in known if is_heldout_pair(c, shape) == heldout]) for shape in shapes]
        if len(set(colours)) == len(colours):
            return list(zip(shapes, colours, strict=True))


def shapes(sheet: Sheet, heldout: bool) -> None:
    """One to three coloured shapes, all different, to be asked for colour and shape."""
    rng = sheet.rng
    _plain_paper(sheet)
    pairs = _pairs(rng, heldout, rng.sample(SHAPES if heldout else TRAINED_SHAPES, rng.choice((1, 1, 2, 2, 3))))
    for (shape, colour), (x, y, r) in zip(pairs, _scatter(sheet, len(pairs), (14, 28)), strict=True):
        sheet.marks.append(Mark(shape, colour, x, y, r, _fill(rng, colour)))
    sheet.questions = scene_questions.about_marks(rng, sheet.marks)


def heap(sheet: Sheet, heldout: bool) -> None:
    """One to five of one shape, sometimes with one or two of another, to be counted."""
    rng = sheet.rng
    _plain_paper(sheet)
    one, other = rng.sample(SHAPES if heldout else TRAINED_SHAPES, 2)
    chosen = [one] * rng.randint(1, 5) + [other] * (rng.choice((1, 2)) if rng.random() < 0.35 else 0)
    rng.shuffle(chosen)
    usual = dict(_pairs(rng, heldout, [one, other]))
    mixed = rng.random() < 0.3
    for shape, (x, y, r) in zip(chosen, _scatter(sheet, len(chosen), (13, 19)), strict=True):
        colour = _pairs(rng, heldout, [shape])[0][1] if mixed else usual[shape]
        sheet.marks.append(Mark(shape, colour, x, y, r, _fill(rng, colour)))
    sheet.questions = scene_questions.about_count(rng, sheet.marks)


def _button(sheet: Sheet, name: str, cell: tuple[float, float, float, float], font: str) -> tuple[float, float]:
    """Print a button somewhere in a cell of the page, all in fractions; return its centre in fractions.

    A button is at least 17 per cent of the page wide and high, so that a step of 5 beside its centre is still on it.
    """
    rng = sheet.rng
    left, top, right, bottom = cell
    room = (right - left) * sheet.width
    size = min(fit(sheet, name, font, 0.85 * (right - left), 24), int(24 * sheet.scale))
    width, caps = measure(name, font, size)
    wide = min(max(width + rng.uniform(8, 24) * sheet.scale, 0.17 * sheet.width), 0.96 * room)
    high = max(caps + rng.uniform(8, 14) * sheet.scale, 0.17 * sheet.height)
    high = min(high, 0.96 * (bottom - top) * sheet.height)
    x = rng.uniform(left * sheet.width + wide / 2, right * sheet.width - wide / 2)
    y = rng.uniform(top * sheet.height + high / 2, bottom * sheet.height - high / 2)
    filled = rng.random() < 0.5
    ink = sheet.paper if filled else sheet.ink
    box = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
    sheet.boxes.append((box, sheet.ink if filled else None, sheet.ink, max(1, round(1.2 * sheet.scale))))
    put(sheet, name, x - width / 2, y + caps / 2, size, font, ink)
    return x / sheet.width, y / sheet.height


def _names(sheet: Sheet, heldout: bool, count: int, most: int) -> list[str]:
    """Make different short names, none of which holds another."""
    names: list[str] = []
    while len(names) < count:
        name = words.word(sheet.rng, heldout, most)
        low = name.lower()
        if not any(low in other.lower() or other.lower() in low for other in names):
            names.append(name)
    return names


def form(sheet: Sheet, heldout: bool) -> None:
    """Two to four buttons with names, each somewhere in its own cell of the page."""
    rng = sheet.rng
    sheet.angle = 0.0
    wide, high = canvas_size(sheet.width, sheet.height)[1]
    columns, rows = 2 if wide > TILE else 1, 2 if high == TILE else 3
    cells = [(c / columns, r / rows, (c + 1) / columns, (r + 1) / rows) for r in range(rows) for c in range(columns)]
    chosen = sorted(rng.sample(range(len(cells)), rng.randint(2, min(4, len(cells)))))
    names, font = _names(sheet, heldout, len(chosen), 6), pick_font(sheet)
    places = [_button(sheet, name, cells[at], font) for name, at in zip(names, chosen, strict=True)]
    sheet.questions = scene_questions.about_buttons(rng, names, places, 0)


def dialog(sheet: Sheet, heldout: bool) -> None:
    """Held out: a word above, two buttons side by side below it."""
    rng = sheet.rng
    sheet.angle = 0.0
    border(sheet, 1.0)
    names, font = _names(sheet, heldout, 3, 5), pick_font(sheet)
    place(sheet, names[0], (0.04, 0.45), "centre", 24)
    cells = ((0.03, 0.5, 0.5, 0.96), (0.5, 0.5, 0.97, 0.96))
    places = [_button(sheet, name, cell, font) for name, cell in zip(names[1:], cells, strict=True)]
    sheet.questions = scene_questions.about_buttons(rng, names[1:], places, 1)


KINDS = {
    "note": (note, poster, (WIDE, WIDE, LARGE, TALL)),
    "bill": (bill, invoice, (WIDE, WIDE, LARGE)),
    "shapes": (shapes, shapes, (WIDE, WIDE, TALL, LARGE)),
    "heap": (heap, heap, (WIDE, WIDE, TALL, LARGE)),
    "form": (form, dialog, (WIDE, WIDE, LARGE)),
}  # layout, the layout of a third of the held-out scenes, and page sizes


def make_scene(seed: int, kind: str, heldout: bool = False, draw: bool = True) -> Page:
    """Make the scene of a seed."""
    rng = random.Random(f"{'heldout' if heldout else 'train'}-{kind}-{seed}")
    usual, unseen, sizes = KINDS[kind]
    width, height = rng.choice(rng.choice(sizes))
    longer, shorter = rng.uniform(1.0, 1.04), rng.uniform(0.95, 1.0)
    across, down = (longer, shorter) if width >= height else (shorter, longer)
    width, height = round(width * across), int(height * down)
    sheet = new_sheet(rng, heldout, (width, height))
    build = unseen if heldout and rng.random() < 1 / 3 else usual
    sheet.layout = build.__name__
    build(sheet, heldout)
    return finish(sheet, draw)
