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

from . import charmap, layouts, pages
from .make_tokenizer import FAKE, GLOBAL, IMAGE, START, TURN_END, make_backend
from .model import TOKENS
from .pages import Page, Question

IGNORED = -100
PREFIX = 0
Lines = list[list[tuple[str, int]]]


@dataclass
class Example:
    """One packed sequence with what its picture holds; `tiles` is empty when training runs on the code instead.

    `spots` holds, for every label, the position of the visual token that shows its character, or -1; `ordinals` which
    character of its line each visual token shows first.
    """

    ids: np.ndarray
    labels: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    patches: np.ndarray
    tiles: np.ndarray
    spots: np.ndarray
    ordinals: np.ndarray


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

    def _turn(self, question: str, answer: str, lines: Lines) -> tuple[list[int], list[int], list[int]]:
        """Return ids and labels of a question and its answer, and the visual token of each label."""
        asked = self.encode(question + TURN_END) + self.encode("\nAssistant:")
        said = self.tokenizer.encode(" " + answer + TURN_END)
        spots = charmap.spots(answer, [(start - 1, end - 1) for start, end in said.offsets], lines)
        none = [IGNORED] * len(asked)
        return asked + said.ids, none + said.ids, [-1] * len(asked) + spots

    def pack(self, prefix: str, chains: list[list[Question]], lines: Lines) -> dict[str, np.ndarray]:
        """Pack chains of questions behind one prefix; `lines` says which visual token shows which character."""
        ids = list(self.encode(prefix))
        labels, segments, positions = [IGNORED] * len(ids), [PREFIX] * len(ids), list(range(len(ids)))
        image = self.tokenizer.token_to_id(IMAGE)
        visual, spots = [at for at, token in enumerate(ids) if token == image], [-1] * len(ids)
        start = len(ids)
        for number, chain in enumerate(chains, 1):
            here: list[int] = []
            marks: list[int] = []
            looks: list[int] = []
            for turn, question in enumerate(chain):
                text = question.text if turn == 0 else f"\nUser: {question.text}"
                more, said, seen = self._turn(text, question.answer, lines)
                here += more
                marks += said
                looks += [visual[token] if token >= 0 else -1 for token in seen]
            ids += here
            labels += marks
            spots += looks
            segments += [number] * len(here)
            positions += range(start, start + len(here))
        columns = {"ids": ids, "labels": labels, "segments": segments, "positions": positions, "spots": spots}
        return {key: np.array(value, np.int16) for key, value in columns.items()}


def _chains(questions: list[Question], rng: random.Random, most: int) -> list[list[Question]]:
    """Shuffle the questions into single turns, and now and then a chain of two."""
    order = rng.sample(questions, len(questions))
    if len(order) > 2 and rng.random() < 0.1:
        return [order[:2], *([q] for q in order[2:most])]
    return [[q] for q in order[:most]]


def make_example(
    seed: int, packer: Packer, draw: bool, split: bool = True, most: int = 6, heldout: bool = False
) -> Example:
    """Make the example of a seed; without splitting the picture is its thumbnail alone."""
    rng = random.Random(f"dialog-{seed}")
    page: Page = layouts.make_page(seed, heldout, draw)
    cols, rows = page.canvas[0] // pages.TILE, page.canvas[1] // pages.TILE
    patches, cells = charmap.targets(page)
    tiles = pages.cut(pages.to_canvas(page.image)) if draw else np.zeros((0, 96, 96, 3), np.uint8)
    lines = charmap.places(page) if split else []
    ordinals = charmap.ordinals(lines, cells.shape[0] * TOKENS)
    cells = np.concatenate([cells, np.zeros_like(cells[:1])])
    if not split:
        rows = cols = 0
        first = pages.canvas_size(*page.image.size)[0]
        small = page.image.convert("RGB").resize(first, pages.Image.Resampling.LANCZOS)
        small = small.resize((pages.TILE, pages.TILE), pages.Image.Resampling.LANCZOS)
        tiles, cells, patches = np.asarray(small)[None], cells[-1:], patches[:0]
    ordinals = np.resize(np.append(ordinals, np.zeros(TOKENS, np.uint8)), cells.shape[0] * TOKENS)
    columns = packer.pack(f"{START}User:" + image_text(rows, cols), _chains(list(page.questions), rng, most), lines)
    told = {"cells": cells.astype(np.uint8), "patches": patches.astype(np.uint8), "ordinals": ordinals}
    return Example(**columns, **told, tiles=tiles)


def collate(examples: list[Example], pad: int) -> dict[str, torch.Tensor]:
    """Pad a batch; the mask lets a token see the prefix and its own segment, backwards only."""
    longest = max(len(e.ids) for e in examples)
    shape = (len(examples), longest)
    ids, labels = np.full(shape, pad, np.int64), np.full(shape, IGNORED, np.int64)
    segments, positions = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    spots = np.full(shape, -1, np.int64)
    for row, example in enumerate(examples):
        count = len(example.ids)
        ids[row, :count], labels[row, :count] = example.ids, example.labels
        segments[row, :count], positions[row, :count] = example.segments, example.positions
        spots[row, :count] = example.spots
    seg = torch.from_numpy(segments)
    seen = (seg[:, :, None] == seg[:, None, :]) | (seg[:, None, :] == PREFIX)
    seen &= torch.ones(longest, longest, dtype=torch.bool).tril()
    return {
        "ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        "positions": torch.from_numpy(positions),
        "seen": seen[:, None],
        "spots": torch.from_numpy(spots),
        "ordinals": torch.from_numpy(np.concatenate([e.ordinals for e in examples]).astype(np.int64)),
        "cells": torch.from_numpy(np.concatenate([e.cells for e in examples]).astype(np.int64)),
        "patches": torch.from_numpy(np.concatenate([e.patches for e in examples]).astype(np.int64)),
        "tiles": torch.from_numpy(np.concatenate([e.tiles for e in examples])),
    }
