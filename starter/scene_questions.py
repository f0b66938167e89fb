"""What is asked about scenes: lines, rows, totals, colours, shapes, counts and places, each in many phrasings."""

from __future__ import annotations

import random

from .pages import Mark, Question
from .phrasings import FIRST, ITEM_OF, PRICE_OF, SAY

SECOND = ("Read the second line.", "What is in the second line?", "What does the second line say?", "Read line 2.")
THIRD = ("Read the third line.", "What is in the third line?", "What does the third line say?", "Read line 3.")
LAST = ("Read the last line.", "What is in the last line?", "What does the bottom line say?", "Read the bottom line.")
EVERYTHING = (*SAY, "Read everything.", "Read all lines.", "Read the whole text.", "What does all of it say?")
TOTAL = (
    "What is the total?",
    "How much is the total?",
    "What does it come to?",
    "How much is it in total?",
    "Read the total.",
    "Tell me the total.",
    "What is the total price?",
    "How much do I pay?",
)
COLOUR = (
    "What colour is it?",
    "What color is it?",
    "Which colour is this?",
    "What is the colour?",
    "Tell me the color.",
)
COLOUR_OF = (
    "What colour is the {}?",
    "What color is the {}?",
    "Which colour has the {}?",
    "What is the colour of the {}?",
    "What is the color of the {}?",
    "Tell me the colour of the {}.",
)
SHAPE = (
    "What shape is it?",
    "Which shape is this?",
    "What is the shape?",
    "What shape do you see?",
    "Tell me the shape.",
)
SHAPE_OF = (
    "Which shape is {}?",
    "What shape is {}?",
    "What is {}?",
    "Which shape do you see in {}?",
    "What is the shape of the {} one?",
)
COUNT = (
    "How many {} are there?",
    "How many {} do you see?",
    "Count the {}.",
    "How many {}?",
    "What is the number of {}?",
    "How many {} are on the picture?",
)
POINT = (
    "Where is the {} button?",
    "Where is {}?",
    "Point at {}.",
    "Point at the {} button.",
    "Where do I tap for {}?",
    "Where do I click for {}?",
    "Where is the button {}?",
)
Row = tuple[str, str]


def plural(shape: str) -> str:
    """Return the name of several of a shape."""
    return shape + ("es" if shape.endswith("s") else "s")


def _spoken(name: str, rng: random.Random) -> str:
    """Mention a name as printed, or in lower case."""
    return name if rng.random() < 0.6 else name.lower()


def about_lines(rng: random.Random, texts: list[str]) -> list[Question]:
    """Ask for single lines by their place, and for all of them."""
    last = len(texts) - 1
    asked = [
        Question("line", rng.choice(phrases), texts[at], (at,))
        for at, phrases in enumerate((FIRST, SECOND, THIRD)[: len(texts)])
    ]
    asked.append(Question("line", rng.choice(LAST), texts[last], (last,)))
    asked.append(Question("all", rng.choice(EVERYTHING), " ".join(texts), tuple(range(len(texts)))))
    return asked


def about_rows(rng: random.Random, rows: list[Row], first_line: int = 0) -> list[Question]:
    """Ask for the price of every article and the article of every price; row n prints two lines, article and price."""
    asked = []
    for at, (item, price) in enumerate(rows):
        item_line, price_line = first_line + 2 * at, first_line + 2 * at + 1
        name = _spoken(item, rng)
        text = rng.choice(PRICE_OF).format(name)
        asked.append(Question("row", text, price, (price_line,), name=name, name_line=item_line))
        text = rng.choice(ITEM_OF).format(price)
        asked.append(Question("row", text, item, (item_line,), name=price, name_line=price_line))
    return asked


def about_total(rng: random.Random, total: str, line: int) -> Question:
    """Ask for the total."""
    return Question("total", rng.choice(TOTAL), total, (line,))


def about_marks(rng: random.Random, marks: list[Mark]) -> list[Question]:
    """Ask for the colour of every shape and the shape of every colour; all are different."""
    if len(marks) == 1:
        return [
            Question("colour", rng.choice(COLOUR), marks[0].colour, mark=0),
            Question("shape", rng.choice(SHAPE), marks[0].shape, mark=0),
        ]
    asked = []
    for at, mark in enumerate(marks):
        asked.append(
            Question("colour", rng.choice(COLOUR_OF).format(mark.shape), mark.colour, mark=at, name=mark.shape)
        )
        asked.append(Question("shape", rng.choice(SHAPE_OF).format(mark.colour), mark.shape, mark=at, name=mark.colour))
    return asked


def about_count(rng: random.Random, marks: list[Mark]) -> list[Question]:
    """Ask how many there are of every shape; the mark to look at is the last of its shape, in reading order."""
    asked = []
    for shape in dict.fromkeys(mark.shape for mark in marks):
        same = [at for at, mark in enumerate(marks) if mark.shape == shape]
        for text in rng.sample(COUNT, 2):
            asked.append(Question("count", text.format(plural(shape)), str(len(same)), mark=same[-1]))
    return asked


def about_buttons(
    rng: random.Random, names: list[str], places: list[tuple[float, float]], first: int
) -> list[Question]:
    """Ask where every button is: x,y in per cent of the page, in steps of 5; line `first` + n names button n."""
    asked = []
    for at, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        spoken = _spoken(name, rng)
        answer = f"{5 * round(x * 20):02d},{5 * round(y * 20):02d}"
        text = rng.choice(POINT).format(spoken)
        asked.append(Question("point", text, answer, (first + at,), name=spoken, name_line=first + at))
    return asked
