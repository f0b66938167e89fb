"""What a bundle and its checkpoint are asked when they are compared: generated pictures and plain prompts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_mllm.arrays import RgbArray
from edge_mllm_export.reference.texts import PLAIN, marker_texts

WIDE, TALL, SQUARE = (640, 80), (60, 480), (96, 96)
PIXEL_SIZES = ((1, 1), (37, 511), (640, 480), (1024, 768), (900, 45), (333, 334))
"""Width and height of pictures on which only pixels and token ids are compared."""
_FURTHER_SIZES, _LONGEST = 34, 800
_QUESTIONS = (
    *("What does it say?", "What is the number?", "Which colour is the box?", "Read the text at the top."),
    *("How many words are there?", "Is there a price?", "What is on the left?", "What is written last?"),
)

_WORDS = ("TOTAL 12.50", "Exit", "Milk 2 l", "Platform 9", "SALE -30%", "No entry", "Wednesday", "4711")


@dataclass(frozen=True)
class Probe:
    """One prompt with its pictures."""

    prompt: str
    pictures: tuple[RgbArray, ...]
    """uint8 [height, width, 3] each."""
    before: tuple[tuple[str, str], ...] = ()
    """Roles and texts of earlier messages."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation, pictures before the last text."""
        earlier = [{"role": role, "content": [_text(text)]} for role, text in self.before]
        content = [*({"type": "image"} for _ in self.pictures), _text(self.prompt)]
        return [*earlier, {"role": "user", "content": content}]

    @property
    def sizes(self) -> list[list[int]]:
        """[width, height] of every picture."""
        return [[picture.shape[1], picture.shape[0]] for picture in self.pictures]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def decoder_probes() -> tuple[Probe, ...]:
    """Prompts with one, two and no pictures. Long thin pictures give few tiles, which keeps the reference quick."""
    wide, tall = draw_picture(*WIDE, seed=1), draw_picture(*TALL, seed=2)
    return (
        Probe("What does it say?", (wide,)),
        Probe("Describe this picture in one sentence.", (tall,)),
        Probe("What is the number?", (draw_picture(*WIDE, seed=3),)),
        Probe("What is different between the two pictures?", (wide, tall)),
        Probe("Name three colours.", ()),
    )


def further_questions() -> Iterator[Probe]:
    """More prompts about one picture each, until nobody asks for another."""
    for number in itertools.count():
        size = (WIDE, TALL, SQUARE)[number % 3]
        question = _QUESTIONS[number % len(_QUESTIONS)]
        yield Probe(question, (draw_picture(*size, seed=100 + number),))


def pixel_probes() -> tuple[Probe, ...]:
    """Pictures of many shapes, for pixels and token ids."""
    return tuple(
        Probe("What does it say?", (draw_picture(width, height, seed=10 + number),))
        for number, (width, height) in enumerate(PIXEL_SIZES)
    )


def further_sizes() -> Iterator[Probe]:
    """More shapes, from points to long strips: sides spread evenly over their logarithms."""
    random = np.random.default_rng(2026)
    for number in range(_FURTHER_SIZES):
        width, height = (int(side) for side in np.exp(random.uniform(0, np.log(_LONGEST), 2)).round())
        yield Probe("What does it say?", (draw_picture(width, height, seed=500 + number),))


def text_probes(markers: Sequence[str]) -> Iterator[Probe]:
    """Prompts on whose texts tokenizers and templates differ, conversations, and zero to three pictures.

    Args:
        markers: Tokens that may stand in what a user writes.
    """
    yield from (Probe(text, ()) for text in (*PLAIN, *marker_texts(markers)) if text)
    small = tuple(draw_picture(40 + 30 * number, 60, seed=40 + number) for number in range(3))
    said = (("user", "What is  1. this?"), ("assistant", "A label:\n\n1.  Milk 2,5 %\n"))
    for pictures in range(4):
        yield Probe("Compare  3 of them.", small[:pictures])
        yield Probe("And\n2. now?", small[:pictures], before=said)
        yield Probe("Now?", small[:pictures], before=(("system", "Be  brief."), *said, *said))
    yield Probe("Hello", (), before=(("system", "You are a caf\u00e9's  2nd clerk.\n"),))


def draw_picture(width: int, height: int, *, seed: int) -> RgbArray:
    """A page with coloured boxes, noise and a few words; the same for the same arguments."""
    from PIL import Image, ImageDraw, ImageFont

    random = np.random.default_rng(seed)
    paper = random.integers(150, 256, 3)
    canvas = np.clip(paper + random.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    page = Image.fromarray(canvas)
    draw = ImageDraw.Draw(page)
    for _ in range(3):
        left, top = int(random.integers(0, width)), int(random.integers(0, height))
        right, bottom = left + int(random.integers(1, 2 + width // 3)), top + int(random.integers(1, 2 + height // 3))
        draw.rectangle((left, top, right, bottom), fill=tuple(int(value) for value in random.integers(0, 256, 3)))
    for _ in range(4):
        font = ImageFont.load_default(size=int(random.integers(10, 12 + height // 4)))
        place = int(random.integers(0, max(1, width * 2 // 3))), int(random.integers(0, max(1, height * 2 // 3)))
        word = _WORDS[int(random.integers(0, len(_WORDS)))]
        draw.text(place, word, fill=tuple(int(value) for value in random.integers(0, 110, 3)), font=font)
    return np.asarray(page)
