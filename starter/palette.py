"""The colours of shapes by name, and which of them training never shows in a shape."""

from __future__ import annotations

from .pages import SHAPES

COLOURS = {
    "red": (215, 30, 30),
    "orange": (245, 140, 15),
    "yellow": (240, 220, 30),
    "green": (30, 155, 60),
    "blue": (30, 75, 215),
    "purple": (125, 40, 170),
    "pink": (250, 150, 200),
    "brown": (120, 70, 30),
}
TRAINED_COLOURS = COLOURS | {"grey": (128, 128, 128), "teal": (0, 150, 150), "olive": (125, 130, 10)}


def is_heldout_pair(colour: str, shape: str) -> bool:
    """Tell whether training never shows this shape in this colour: two colours of every shape."""
    asked = colour in COLOURS and shape in SHAPES
    return asked and (list(COLOURS).index(colour) + 3 * SHAPES.index(shape)) % 4 == 0
