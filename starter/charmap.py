"""From printed characters to training targets: what each 8-pixel patch shows, and what each visual token should say."""

from __future__ import annotations

import string

import numpy as np

from .pages import TILE, TRAINED_SHAPES, Page
from .palette import TRAINED_COLOURS

CHARS = string.ascii_lowercase + string.ascii_uppercase + string.digits + ".$€£"
CLASSES = len(CHARS) + 1
CODE = {char: index + 1 for index, char in enumerate(CHARS)}
PATCH = 8
TOKEN = 16
CELL = 4
SLOTS = TOKEN // CELL
MOST = 16
ROWS = 7
PLACES = 12
UNASKED = 255
SAME_ROW = 9.0


def _tiled(grid: np.ndarray, per_tile: tuple[int, int]) -> np.ndarray:
    """Cut a [rows, cols] grid over the canvas into tiles, row by row: [tiles, per_tile rows, per_tile cols]."""
    high, wide = per_tile
    rows, cols = grid.shape[0] // high, grid.shape[1] // wide
    return grid.reshape(rows, high, cols, wide).transpose(0, 2, 1, 3).reshape(rows * cols, high, wide)


def targets(page: Page) -> tuple[np.ndarray, np.ndarray]:
    """Return the class under each patch [tiles, 144] and in each cell of each visual token [tiles, 36, 4].

    0 is blank. A patch belongs to the character whose box holds its centre. A visual token, 16 pixels square, has four
    upright cells; a cell holds the character whose centre falls into it, on the height of the middle of its line, so
    that every character belongs to one token, and the characters of a line to one row of tokens.
    """
    wide, high = page.canvas
    under = np.zeros((high // PATCH, wide // PATCH), np.int64)
    slots = np.zeros((high // TOKEN, wide // TOKEN, SLOTS), np.int64)
    centres: list[tuple[int, int, int]] = []
    for glyph in sorted(page.glyphs, key=lambda glyph: glyph.left + glyph.right):
        code = CODE[glyph.char]
        c0, c1 = (max(0, int(np.ceil(edge / PATCH - 0.5))) for edge in (glyph.left, glyph.right))
        r0, r1 = (max(0, int(np.ceil(edge / PATCH - 0.5))) for edge in (glyph.top, glyph.bottom))
        under[r0:r1, c0:c1] = code
        x, y = (glyph.left + glyph.right) / 2, (glyph.top + glyph.bottom) / 2
        if 0 <= x < wide and 0 <= y < high:
            centres.append((int(y // PATCH), int(x // PATCH), code))
        if 0 <= x < wide and 0 <= glyph.middle < high:
            slots[int(glyph.middle // TOKEN), int(x // TOKEN), int(x % TOKEN // CELL)] = code
    for row, col, code in centres:
        under[row, col] = code
    side, tokens = TILE // PATCH, TILE // TOKEN
    rows, cols = high // TILE, wide // TILE
    patches = _tiled(under, (side, side)).reshape(-1, side * side)
    parts = slots.reshape(rows, tokens, cols, tokens, SLOTS).transpose(0, 2, 1, 3, 4)
    return patches, parts.reshape(rows * cols, tokens * tokens, SLOTS)


def places(page: Page) -> list[list[tuple[str, int]]]:
    """Return, for every line, its characters and the visual tokens that show them, -1 for none; blanks are left out."""
    wide, high = page.canvas
    tokens = TILE // TOKEN
    lines: list[list[tuple[str, int]]] = []
    for glyph in page.glyphs:
        while len(lines) <= glyph.line:
            lines.append([])
        x, y = (glyph.left + glyph.right) / 2, glyph.middle
        where = -1
        if 0 <= x < wide and 0 <= y < high:
            tile = int(y // TILE) * (wide // TILE) + int(x // TILE)
            where = (tile * tokens + int(y % TILE // TOKEN)) * tokens + int(x % TILE // TOKEN)
        lines[glyph.line].append((glyph.char, where))
    return lines


def ordinals(lines: list[list[tuple[str, int]]], count: int) -> np.ndarray:
    """Return which character of its line each of `count` visual tokens shows first, counted from 1; 0 for none."""
    found = np.zeros(count, np.uint8)
    for line in lines:
        for at, (_, where) in reversed(list(enumerate(line))):
            if where >= 0:
                found[where] = min(at, MOST - 2) + 1
    return found


def rows(page: Page) -> np.ndarray:
    """Return which row of text, counted from 1 at the top, each visual token shows: [tiles * 36], 0 for none.

    Lines at one height are one row. Buttons stand in no rows: their tokens are not asked.
    """
    wide, high = page.canvas
    found = np.zeros(wide * high // TOKEN**2, np.uint8)
    lines = places(page)
    middles = [np.mean([glyph.middle for glyph in page.glyphs if glyph.line == at]) for at in range(len(lines))]
    row, last = 0, -np.inf
    for at in sorted(range(len(lines)), key=lambda at: middles[at]):
        row += middles[at] - last > SAME_ROW
        last = middles[at]
        shown = [where for _, where in lines[at] if where >= 0]
        found[shown] = UNASKED if page.layout in ("form", "dialog") else min(row, ROWS - 1)
    return found


def across(rows: int, cols: int) -> np.ndarray:
    """Return in which twelfth of the page's width and height each visual token lies: [tiles * 36, 2]."""
    tokens = TILE // TOKEN
    y, x = np.mgrid[: rows * tokens, : cols * tokens]
    twelfths = [(at + 0.5) * PLACES / (many * tokens) for at, many in ((x, cols), (y, rows))]
    tiled = [_tiled(at.astype(np.uint8), (tokens, tokens)).reshape(-1) for at in twelfths]
    return np.stack(tiled, axis=1)


def marks(page: Page) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return what tiles and thumbnail show of coloured shapes.

    Shape and colour, counted from 1, under each patch, the thumbnail's last [tiles + 1, 144, 2]; the how-manieth of its
    shape each visual token of the thumbnail shows [36]; and the token of every mark, counted within the thumbnail.
    """
    (wide, high), tokens, side = page.canvas, TILE // TOKEN, TILE // PATCH
    order = np.zeros(tokens * tokens, np.uint8)
    where: list[int] = []
    seen: dict[str, int] = {}
    for mark in page.marks:
        seen[mark.shape] = seen.get(mark.shape, 0) + 1
        where.append(int(tokens * mark.y / high) * tokens + int(tokens * mark.x / wide))
        order[where[-1]] = seen[mark.shape]
    tiles = [_tiled(_under_marks(page, wide // PATCH, high // PATCH, at), (side, side)) for at in (0, 1)]
    small = _under_marks(page, side, side, 0), _under_marks(page, side, side, 1)
    under = [
        np.append(whole, part[None], axis=0).reshape(-1, side * side) for whole, part in zip(tiles, small, strict=True)
    ]
    return np.stack(under, axis=-1), order, where


def _under_marks(page: Page, cols: int, rows: int, which: int) -> np.ndarray:
    """Return the shape (0) or the colour (1), counted from 1, under each patch of a grid over the page [rows, cols]."""
    under = np.zeros((rows, cols), np.uint8)
    y, x = np.mgrid[:rows, :cols] + 0.5
    x, y = x * (page.canvas[0] / cols), y * (page.canvas[1] / rows)
    for mark in page.marks:
        inside = (abs(x - mark.x) < 0.9 * mark.radius) & (abs(y - mark.y) < 0.9 * mark.radius)
        under[inside] = (TRAINED_SHAPES.index(mark.shape) + 1, list(TRAINED_COLOURS).index(mark.colour) + 1)[which]
    return under


def read_spots(answer: str, spans: list[tuple[int, int]], line: list[tuple[str, int]]) -> list[int]:
    """Return the visual token of each token of an answer that is a line's text, its case and blanks aside."""
    letters = [at for at, char in enumerate(answer) if char != " "]
    if "".join(answer[at] for at in letters).lower() != "".join(char for char, _ in line).lower():
        raise ValueError(f"{answer!r} is not what the lines say")
    where = dict(zip(letters, (token for _, token in line), strict=True))
    return [next((where[i] for i in range(max(0, a), b) if where.get(i, -1) >= 0), -1) for a, b in spans]


def spots(answer: str, spans: list[tuple[int, int]], lines: list[list[tuple[str, int]]]) -> list[int]:
    """Return the visual token to look at for each token of an answer, given the tokens' spans in it; -1 for none."""
    where = [-1] * len(answer)
    at = 0
    texts = ["".join(char for char, _ in line) for line in lines]
    for piece in filter(None, answer.split(" ")):
        for number in sorted(range(len(lines)), key=lambda n: texts[n] != piece):
            found = texts[number].find(piece)
            if found >= 0:
                where[at : at + len(piece)] = [token for _, token in lines[number][found : found + len(piece)]]
                break
        at += len(piece) + 1
    return [next((where[i] for i in range(max(0, a), min(b, len(answer))) if where[i] >= 0), -1) for a, b in spans]
