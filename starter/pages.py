"""Printed pages with known text: picture, questions with answers, and which character stands where.

A page is laid out at its own size (say 640x480) and seen by the model after the processor's two resizes, as a canvas of
96-pixel tiles. Text sizes are chosen on the canvas: letters that the tiles show well and the thumbnail does not.
"""

from __future__ import annotations

import functools
import io
import math
import random
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import fonts

TILE = 96
LONGEST = 192
SIZES = (
    *((384, 192), (400, 200), (512, 256), (600, 300), (640, 300), (320, 150)),
    *((192, 384), (240, 480), (300, 600)),
    *((640, 480), (1024, 768), (400, 300), (300, 300)),
)


EIGHTH = math.pi / 4
OUTLINES = {
    "square": [(1.2, EIGHTH * (2 * at + 1)) for at in range(4)],
    "triangle": [(1.2, math.pi * 2 / 3 * at) for at in range(3)],
    "star": [((1.2, 0.5)[at % 2], math.pi / 5 * at) for at in range(10)],
    "cross": [
        (math.hypot(*corner), math.atan2(*corner))
        for x, y in ((0, 1), (1, 0), (0, -1), (-1, 0))
        for corner in ((x - 0.33 * y, y + 0.33 * x), (x + 0.33 * y, y - 0.33 * x), (0.33 * (x + y), 0.33 * (y - x)))
    ],
    "arrow": [
        (math.hypot(x, y), math.atan2(x, y))
        for x, y in ((0, 1.1), (0.9, 0.1), (0.35, 0.1), (0.35, -1), (-0.35, -1), (-0.35, 0.1), (-0.9, 0.1))
    ],
    "bar": [(math.hypot(x, y), math.atan2(x, y)) for x, y in ((1.1, 0.35), (1.1, -0.35), (-1.1, -0.35), (-1.1, 0.35))],
}  # (distance from the centre in radii, clockwise angle from above) of the corners
SHAPES = ("circle", "square", "triangle", "star", "cross")
TRAINED_SHAPES = (*SHAPES, "ring", "arrow", "bar")  # more than are asked about, so that colour and shape come apart


@dataclass(frozen=True)
class Question:
    """One thing to ask about a page, with the only right answer.

    For training also what to look at: the lines that the answer reads or points at, or the mark that it is about; and
    the name that the question mentions, with the line that shows it.
    """

    skill: str
    text: str
    answer: str
    lines: tuple[int, ...] = ()
    mark: int = -1
    name: str = ""
    name_line: int = -1


@dataclass(frozen=True)
class Glyph:
    """One printed character: its box on the canvas, in pixels after the processor's resizes, and its line."""

    char: str
    left: float
    top: float
    right: float
    bottom: float
    middle: float
    line: int


@dataclass(frozen=True)
class Line:
    """One line of text on the page, placed by its left end and baseline, in page pixels."""

    text: str
    left: float
    baseline: float
    size: int
    font: str
    ink: tuple[int, int, int]


@dataclass(frozen=True)
class Mark:
    """One coloured shape: its centre and radius in pixels, on the page while it is laid out, then on the canvas."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float
    fill: tuple[int, int, int]


@dataclass
class Sheet:
    """A page while it is being laid out: size, paper, rectangles, marks, lines and questions."""

    width: int
    height: int
    paper: tuple[int, int, int]
    ink: tuple[int, int, int]
    rng: random.Random
    fonts: tuple[tuple[str, ...], ...]
    boxes: list[tuple] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    layout: str = ""
    angle: float = 0.0

    @property
    def scale(self) -> float:
        """Page pixels for one canvas pixel, along the width."""
        return self.width / canvas_size(self.width, self.height)[1][0]


@dataclass(frozen=True)
class Page:
    """A finished page."""

    image: Image.Image | None
    canvas: tuple[int, int]
    glyphs: tuple[Glyph, ...]
    questions: tuple[Question, ...]
    layout: str
    marks: tuple[Mark, ...] = ()


def canvas_size(width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the processor's two sizes (width, height) for a page: longest edge 192, then whole tiles."""
    ratio = width / height
    if width >= height:
        first = (LONGEST, int(LONGEST / ratio))
        first = (first[0], max(1, first[1] + first[1] % 2))
    else:
        first = (int(LONGEST * ratio), LONGEST)
        first = (max(1, first[0] + first[0] % 2), first[1])
    wide, high = first
    ratio = wide / high
    if wide >= high:
        wide = math.ceil(wide / TILE) * TILE
        high = math.ceil(int(wide / ratio) / TILE) * TILE
    else:
        high = math.ceil(high / TILE) * TILE
        wide = math.ceil(int(high * ratio) / TILE) * TILE
    return first, (wide, high)


def to_canvas(image: Image.Image) -> np.ndarray:
    """Resize a page exactly as the processor does; uint8 [height, width, 3]."""
    first, second = canvas_size(*image.size)
    resized = image.convert("RGB").resize(first, Image.Resampling.LANCZOS)
    return np.asarray(resized.resize(second, Image.Resampling.LANCZOS))


def cut(canvas: np.ndarray) -> np.ndarray:
    """Cut a canvas into its tiles, row by row, and add the thumbnail; uint8 [tiles + 1, 96, 96, 3]."""
    rows, cols = canvas.shape[0] // TILE, canvas.shape[1] // TILE
    tiles = canvas.reshape(rows, TILE, cols, TILE, 3).transpose(0, 2, 1, 3, 4).reshape(rows * cols, TILE, TILE, 3)
    thumbnail = Image.fromarray(canvas).resize((TILE, TILE), Image.Resampling.LANCZOS)
    return np.concatenate([tiles, np.asarray(thumbnail)[None]])


@functools.lru_cache(maxsize=2048)
def load_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font once per size."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _contrasting(rng: random.Random) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Pick paper and ink that a person can tell apart."""
    pick = rng.random()
    if pick < 0.5:
        paper, ink = rng.randint(225, 255), rng.randint(0, 60)
        return (paper, paper, paper), (ink, ink, ink)
    bright = tuple(rng.randint(190, 255) for _ in range(3))
    dark = tuple(rng.randint(0, 90) for _ in range(3))
    return (bright, dark) if pick < 0.85 else (dark, bright)


def new_sheet(rng: random.Random, heldout: bool, size: tuple[int, int] | None = None) -> Sheet:
    """Start an empty page of a random size, paper, ink and tilt."""
    width, height = size or rng.choice(SIZES)
    if size is None:
        longer, shorter = rng.uniform(1.0, 1.05), rng.uniform(0.95, 1.0)
        across, down = (longer, shorter) if width >= height else (shorter, longer)
        width, height = round(width * across), int(height * down)
    paper, ink = _contrasting(rng)
    sheet = Sheet(width, height, paper, ink, rng, fonts.families(heldout))
    sheet.angle = rng.uniform(-2.0, 2.0) if rng.random() < 0.25 else 0.0
    return sheet


def pick_font(sheet: Sheet) -> str:
    """Pick a family first and a weight second, so that big families do not crowd out small ones."""
    return sheet.rng.choice(sheet.rng.choice(sheet.fonts))


def measure(text: str, path: str, size: int) -> tuple[float, float]:
    """Return the advance width and the height of capitals of a text, in page pixels."""
    font = load_font(path, size)
    return font.getlength(text), -font.getbbox("H", anchor="ls")[1]


def put(sheet: Sheet, text: str, left: float, baseline: float, size: int, font: str, ink: tuple | None = None) -> None:
    """Print one line."""
    sheet.lines.append(Line(text, left, baseline, size, font, ink or sheet.ink))


def _glyphs_of(number: int, sheet: Sheet) -> list[Glyph]:
    """Find where the characters of a line end up on the canvas, tilt included."""
    line = sheet.lines[number]
    font = load_font(line.font, line.size)
    wide, high = canvas_size(sheet.width, sheet.height)[1]
    sx, sy = wide / sheet.width, high / sheet.height
    turn = math.radians(sheet.angle)
    cos, sin = math.cos(turn), math.sin(turn)
    rise = -font.getbbox("H", anchor="ls")[1] / 2
    found: list[Glyph] = []
    for at, char in enumerate(line.text):
        if char == " ":
            continue
        x0, y0, x1, y1 = font.getbbox(char, anchor="ls")
        start = line.left + font.getlength(line.text[:at])
        dx, dy = start + (x0 + x1) / 2 - sheet.width / 2, line.baseline + (y0 + y1) / 2 - sheet.height / 2
        x, y = cos * dx + sin * dy + sheet.width / 2, -sin * dx + cos * dy + sheet.height / 2
        hw, hh = (x1 - x0) / 2, (y1 - y0) / 2
        middle = -sin * dx + cos * (line.baseline - rise - sheet.height / 2) + sheet.height / 2
        found.append(Glyph(char, (x - hw) * sx, (y - hh) * sy, (x + hw) * sx, (y + hh) * sy, middle * sy, number))
    return found


def draw_mark(pen: ImageDraw.ImageDraw, mark: Mark) -> None:
    """Draw one of `TRAINED_SHAPES`."""
    x, y, r = mark.x, mark.y, mark.radius
    box = (x - r, y - r, x + r, y + r)
    if mark.shape == "circle":
        pen.ellipse(box, fill=mark.fill)
    elif mark.shape == "ring":
        pen.ellipse(box, outline=mark.fill, width=max(2, round(0.45 * r)))
    else:
        corners = [(x + r * far * math.sin(turn), y - r * far * math.cos(turn)) for far, turn in OUTLINES[mark.shape]]
        pen.polygon(corners, fill=mark.fill)


def _draw(sheet: Sheet) -> Image.Image:
    """Print rectangles and lines, then tilt, add noise and JPEG artefacts."""
    rng = sheet.rng
    image = Image.new("RGB", (sheet.width, sheet.height), sheet.paper)
    pen = ImageDraw.Draw(image)
    for box, fill, outline, thick in sheet.boxes:
        pen.rectangle(box, fill=fill, outline=outline, width=thick)
    for mark in sheet.marks:
        draw_mark(pen, mark)
    for line in sheet.lines:
        pen.text(
            (line.left, line.baseline), line.text, font=load_font(line.font, line.size), fill=line.ink, anchor="ls"
        )
    if sheet.angle:
        image = image.rotate(sheet.angle, Image.Resampling.BILINEAR, fillcolor=sheet.paper)
    if rng.random() < 0.2:
        noise = np.random.default_rng(rng.randrange(2**32)).integers(-12, 13, (sheet.height, sheet.width, 1), np.int16)
        strength = rng.uniform(0.3, 1.2)
        image = Image.fromarray(np.clip(np.asarray(image) + noise * strength, 0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(45, 92))
        image = Image.open(buffer).convert("RGB")
    return image


def finish(sheet: Sheet, draw: bool = True) -> Page:
    """Turn a sheet into a page; without drawing only the character positions are made."""
    glyphs = [glyph for number in range(len(sheet.lines)) for glyph in _glyphs_of(number, sheet)]
    canvas = canvas_size(sheet.width, sheet.height)[1]
    sx, sy = canvas[0] / sheet.width, canvas[1] / sheet.height
    marks = tuple(replace(mark, x=mark.x * sx, y=mark.y * sy, radius=mark.radius * sx) for mark in sheet.marks)
    return Page(_draw(sheet) if draw else None, canvas, tuple(glyphs), tuple(sheet.questions), sheet.layout, marks)
