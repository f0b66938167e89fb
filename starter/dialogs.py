"""Token sequences for training: one picture, many questions, each seeing the picture and itself alone.

The picture's tokens are a shared prefix; every question with its answer is a segment whose positions go on from the
prefix and whose attention leaves out the other segments. One pass of the tower thus teaches several single-turn
dialogs, token for token as the processor writes them at inference.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from . import charmap, layouts, pages, scenes
from .make_tokenizer import FAKE, GLOBAL, IMAGE, START, TURN_END, make_backend
from .model import TOKENS
from .pages import Page, Question

IGNORED = -100
PREFIX = 0
Lines = list[list[tuple[str, int]]]


@dataclass
class Example:
    """One packed sequence with what its picture holds; `tiles` is empty when training runs on the code instead.

    `spots` holds, for every label, the position of the visual token that shows its character, or -1; `late` the same
    with the spots that can only be known after the question's name has been found; `asks` for every letter of a name
    in a question, one further on, the token that shows it. Of each visual token, `ordinals` says which character of
    its line, or which mark of its shape, it shows first, `rows` in which row of text and `across` where on the page it
    is. `marks` is which marks lie under the patches of all tiles; `skills` names the answers in their order.
    """

    ids: np.ndarray
    labels: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    spots: np.ndarray
    late: np.ndarray
    asks: np.ndarray
    cells: np.ndarray
    patches: np.ndarray
    tiles: np.ndarray
    ordinals: np.ndarray
    rows: np.ndarray
    across: np.ndarray
    marks: np.ndarray
    skills: list[str]


@dataclass
class Shown:
    """Which visual tokens of a picture show the characters of its lines, and which its marks."""

    lines: Lines
    marks: list[int]


COLUMNS = ("ids", "labels", "spots", "late", "asks")


def image_text(rows: int, cols: int) -> str:
    """Return what the processor puts in place of a picture."""
    if rows == 0:
        return FAKE + GLOBAL + IMAGE * TOKENS + FAKE
    lines = ["".join(f"{FAKE}<row_{r + 1}_col_{c + 1}>" + IMAGE * TOKENS for c in range(cols)) for r in range(rows)]
    return "\n".join(lines) + f"\n\n{FAKE}{GLOBAL}" + IMAGE * TOKENS + FAKE


class Packer:
    """Turns pictures and questions into examples."""

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self.tokenizer = tokenizer or make_backend()
        self.cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a piece of text."""
        if len(text) > 400 or text.startswith("\nA"):
            if text not in self.cache:
                self.cache[text] = self.tokenizer.encode(text).ids
            return self.cache[text]
        return self.tokenizer.encode(text).ids

    def _asked(self, text: str, question: Question, shown: Shown) -> tuple[list[int], list[int]]:
        """Return a question's ids and, for the token after each letter of a name in it, what shows the letter."""
        asked = self.tokenizer.encode(text + TURN_END)
        ids = asked.ids + self.encode("\nAssistant:")
        asks = [-1] * len(ids)
        if question.name and (shown.lines or shown.marks):
            at = text.rindex(question.name)
            spans = [(start - at, end - at) for start, end in asked.offsets]
            if question.name_line >= 0:
                line = shown.lines[question.name_line]
                found = charmap.read_spots(question.name, spans, line)
            else:
                last = len(question.name) - 1
                found = [shown.marks[question.mark] if start <= last < end else -1 for start, end in spans]
            asks[1 : 1 + len(found)] = found
        return ids, asks[: len(ids)]

    def _answered(self, question: Question, shown: Shown) -> tuple[list[int], list[int], list[int]]:
        """Return the ids of an answer and what shows them, for the layers before the last and for the last."""
        answer = question.answer
        said = self.tokenizer.encode(" " + answer + TURN_END)
        spans = [(start - 1, end - 1) for start, end in said.offsets]
        first = next(at for at, (_, end) in enumerate(spans) if end > 0)
        if question.mark >= 0:
            late = [-1] * len(spans)
            late[first] = shown.marks[question.mark]
            return said.ids, [-1] * len(late) if question.name or question.skill == "count" else late, late
        if question.lines and shown.lines:
            line = [pair for at in question.lines for pair in shown.lines[at]]
            if question.skill == "point":
                middle = line[len(line) // 2][1]
                late = [middle if 0 < end <= len(answer) else -1 for _, end in spans]
                return said.ids, [-1] * len(late), late
            late = charmap.read_spots(answer, spans, line)
        else:
            late = charmap.spots(answer, spans, shown.lines)
        early = list(late)
        if question.name:
            early[first] = -1
        return said.ids, early, late

    def _turn(self, text: str, question: Question, shown: Shown) -> tuple[list[int], ...]:
        """Return the columns of a question and its answer; spots count visual tokens of the picture."""
        asked, asks = self._asked(text, question, shown)
        said, early, late = self._answered(question, shown)
        none, unseen = [IGNORED] * len(asked), [-1] * len(asked)
        return asked + said, none + said, unseen + early, unseen + late, asks + [-1] * len(said)

    def pack(self, prefix: str, chains: list[list[Question]], shown: Shown) -> dict[str, np.ndarray]:
        """Pack chains of questions behind one prefix; `shown` says which visual token shows what."""
        ids = list(self.encode(prefix))
        image = self.tokenizer.token_to_id(IMAGE)
        visual = [at for at, token in enumerate(ids) if token == image]
        start = len(ids)
        columns: list[list[int]] = [ids, [IGNORED] * start, [-1] * start, [-1] * start, [-1] * start]
        segments, positions = [PREFIX] * start, list(range(start))
        for number, chain in enumerate(chains, 1):
            here = 0
            for turn, question in enumerate(chain):
                text = question.text if turn == 0 else f"\nUser: {question.text}"
                ids, labels, *looks = self._turn(text, question, shown)
                looks = [[visual[token] if token >= 0 else -1 for token in look] for look in looks]
                for column, more in zip(columns, (ids, labels, *looks), strict=True):
                    column += more
                here += len(ids)
            segments += [number] * here
            positions += range(start, start + here)
        named = dict(zip(COLUMNS, columns, strict=True)) | {"segments": segments, "positions": positions}
        return {key: np.array(value, np.int16) for key, value in named.items()}


def _chains(questions: list[Question], rng: random.Random, most: int) -> list[list[Question]]:
    """Shuffle the questions into single turns, and now and then a chain of two."""
    order = rng.sample(questions, len(questions))
    if len(order) > 2 and rng.random() < 0.1:
        return [order[:2], *([q] for q in order[2:most])]
    return [[q] for q in order[:most]]


def make_page(seed: int, kind: str, heldout: bool, draw: bool) -> Page:
    """Make a page of one thing, or a scene."""
    return layouts.make_page(seed, heldout, draw) if kind == "page" else scenes.make_scene(seed, kind, heldout, draw)


def make_example(
    seed: int,
    packer: Packer,
    draw: bool = True,
    kind: str = "page",
    split: bool = True,
    heldout: bool = False,
    most: int = 6,
) -> Example:
    """Make the example of a seed; without splitting the picture is its thumbnail alone."""
    rng = random.Random(f"dialog-{seed}")
    page = make_page(seed, kind, heldout, draw)
    cols, rows = page.canvas[0] // pages.TILE, page.canvas[1] // pages.TILE
    patches, cells = charmap.targets(page)
    under, marked, where = charmap.marks(page)
    tiles = pages.cut(pages.to_canvas(page.image)) if draw else np.zeros((0, 96, 96, 3), np.uint8)
    count = len(cells) * TOKENS
    shown = Shown(charmap.places(page), [count + token for token in where])
    ordinals = np.append(charmap.ordinals(shown.lines, count), marked)
    lines, across = np.append(charmap.rows(page), np.zeros(TOKENS, np.uint8)), charmap.across(rows, cols)
    across = np.append(across, np.full((TOKENS, 2), charmap.UNASKED, np.uint8), axis=0)
    cells = np.concatenate([cells, np.zeros_like(cells[:1])])
    if not split:
        rows = cols = 0
        first = pages.canvas_size(*page.image.size)[0]
        small = page.image.convert("RGB").resize(first, pages.Image.Resampling.LANCZOS)
        small = small.resize((pages.TILE, pages.TILE), pages.Image.Resampling.LANCZOS)
        tiles, cells, patches, shown = np.asarray(small)[None], cells[-1:], patches[:0], Shown([], [])
        under = under[-1:]
        ordinals, lines, across = ordinals[-TOKENS:], lines[-TOKENS:], across[-TOKENS:]
    chains = _chains(list(page.questions), rng, most)
    columns = packer.pack(f"{START}User:" + image_text(rows, cols), chains, shown)
    told = {"cells": cells.astype(np.uint8), "patches": patches.astype(np.uint8), "ordinals": ordinals}
    skills = [question.skill for chain in chains for question in chain]
    return Example(**columns, **told, tiles=tiles, rows=lines, across=across, marks=under, skills=skills)


def collate(examples: list[Example], pad: int) -> dict[str, torch.Tensor]:
    """Pad a batch; the mask lets a token see the prefix and its own segment, backwards only."""
    longest = max(len(e.ids) for e in examples)
    fills = {"ids": pad, "labels": IGNORED, "segments": -1, "positions": 0, "spots": -1, "late": -1, "asks": -1}
    batch: dict[str, torch.Tensor] = {}
    for name, fill in fills.items():
        column = np.full((len(examples), longest), fill, np.int64)
        for row, example in enumerate(examples):
            column[row, : len(example.ids)] = getattr(example, name)
        batch[name] = torch.from_numpy(column)
    seg = batch.pop("segments")
    seen = (seg[:, :, None] == seg[:, None, :]) | (seg[:, None, :] == PREFIX)
    seen &= torch.ones(longest, longest, dtype=torch.bool).tril()
    for name in ("ordinals", "rows", "across", "cells", "patches", "marks"):
        batch[name] = torch.from_numpy(np.concatenate([getattr(e, name) for e in examples]).astype(np.int64))
    batch["tiles"] = torch.from_numpy(np.concatenate([e.tiles for e in examples]))
    return batch | {"seen": seen[:, None]}
