"""Training data made while training runs: worker processes draw pages, the trainer draws from a pool of them."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import random
from collections.abc import Callable

import numpy as np
import torch

from . import charmap, layouts, pages

Arrays = tuple[np.ndarray, ...]
REUSE = 2.5


def soup_tiles(seed: int) -> Arrays:
    """Make the tiles of one page for the tower (mostly soup) with the class of every patch and every cell."""
    page = layouts.make_page(seed) if seed % 5 == 0 else layouts.make_soup(seed)
    patches, cells = charmap.targets(page)
    return pages.cut(pages.to_canvas(page.image))[:-1], patches.astype(np.uint8), cells.astype(np.uint8)


def heldout_tiles(count: int, first_seed: int) -> Arrays:
    """Make tiles with text of held-out pages, for the learning curve."""
    parts = []
    for seed in range(first_seed, first_seed + count):
        page = layouts.make_page(seed, heldout=True)
        patches, cells = charmap.targets(page)
        tiles = pages.cut(pages.to_canvas(page.image))[:-1]
        some = cells.any(axis=(1, 2))
        parts.append((tiles[some], patches[some], cells[some]))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _work(make: Callable, first_seed: int, step: int, chunk: int, out: multiprocessing.Queue) -> None:
    """Draw pages for ever, a chunk at a time."""
    seed = first_seed
    while True:
        parts = []
        for _ in range(chunk):
            parts.append(make(seed))
            seed += step
        out.put(tuple(np.concatenate(column) for column in zip(*parts, strict=True)))


class TilePool:
    """A ring of tiles that a worker keeps refilling; a batch is a random draw with shuffled colours."""

    def __init__(self, first_seed: int, capacity: int = 12000, start: int = 1500) -> None:
        context = multiprocessing.get_context("spawn")
        self.inbox = context.Queue(maxsize=4)
        self.worker = context.Process(target=_work, args=(soup_tiles, first_seed, 1, 24, self.inbox), daemon=True)
        self.worker.start()
        self.capacity, self.held, self.at, self.made, self.drawn = capacity, 0, 0, 0, 0
        self.tiles = np.zeros((capacity, 96, 96, 3), np.uint8)
        self.patches = np.zeros((capacity, 144), np.uint8)
        self.cells = np.zeros((capacity, (96 // charmap.TOKEN) ** 2, charmap.SLOTS), np.uint8)
        while self.held < start:
            self._store(self.inbox.get(timeout=120))

    def _store(self, chunk: Arrays) -> None:
        """Write a chunk over the oldest tiles."""
        count = len(chunk[0])
        where = (self.at + np.arange(count)) % self.capacity
        self.tiles[where], self.patches[where], self.cells[where] = chunk
        self.at = (self.at + count) % self.capacity
        self.held = min(self.capacity, self.held + count)
        self.made += count

    def batch(self, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return pixels [n, 3, 96, 96] in -1..1, patch classes and cell classes."""
        self.drawn += size
        if self.drawn > REUSE * self.made:
            with contextlib.suppress(queue.Empty):
                self._store(self.inbox.get_nowait())
        pick = rng.integers(0, self.held, size)
        pixels = to_pixels(self.tiles[pick])
        pixels = recolour(pixels, rng)
        return (
            pixels,
            torch.from_numpy(self.patches[pick].astype(np.int64)),
            torch.from_numpy(self.cells[pick].astype(np.int64)),
        )


def to_pixels(tiles: np.ndarray) -> torch.Tensor:
    """Scale uint8 tiles [n, h, w, 3] as the processor does: float32 [n, 3, h, w] in -1..1."""
    return torch.from_numpy(tiles).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def recolour(pixels: torch.Tensor, rng: np.random.Generator, fixed: torch.Tensor | None = None) -> torch.Tensor:
    """Permute the colour channels of a batch and turn a few of its tiles into negatives, save the `fixed` ones."""
    order = torch.from_numpy(rng.permutation(3))
    sign = torch.from_numpy(rng.choice([-1.0, 1.0], size=(len(pixels), 1, 1, 1), p=[0.08, 0.92]).astype(np.float32))
    changed = pixels[:, order] * sign
    return changed if fixed is None else torch.where(fixed[:, None, None, None], pixels, changed)


def _draw_examples(settings: dict, first_seed: int, step: int, out: multiprocessing.Queue) -> None:
    """Make examples for ever, in chunks; `mix` weighs the kinds of pages."""
    from .dialogs import Packer, make_example

    packer, seed = Packer(), first_seed
    kinds, weights = zip(*settings["mix"].items(), strict=True)
    torch.set_num_threads(1)
    while True:
        chunk = []
        for _ in range(16):
            kind = random.Random(seed).choices(kinds, weights)[0]
            split = not settings["draw"] or seed % 25 != 0 or kind != "page"
            chunk.append(make_example(seed, packer, settings["draw"], kind, split, most=settings["most"]))
            seed += step
        out.put(chunk)


class ExamplePool:
    """Packed dialogs from a worker, each used a few times in random order."""

    def __init__(
        self,
        first_seed: int,
        draw: bool,
        mix: dict[str, float] | None = None,
        most: int = 6,
        capacity: int = 6000,
        reuse: float = 1.0,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.inbox = context.Queue(maxsize=8)
        settings = {"draw": draw, "most": most, "mix": mix or {"page": 1.0}}
        self.worker = context.Process(target=_draw_examples, args=(settings, first_seed, 1, self.inbox), daemon=True)
        self.worker.start()
        self.capacity, self.reuse, self.examples = capacity, reuse, []
        self.made, self.drawn = 0, 0
        while len(self.examples) < 400:
            self._store(self.inbox.get(timeout=120))

    def _store(self, chunk: list) -> None:
        """Put new examples in the place of the oldest."""
        for example in chunk:
            if len(self.examples) < self.capacity:
                self.examples.append(example)
            else:
                self.examples[self.made % self.capacity] = example
            self.made += 1

    def batch(self, size: int, rng: np.random.Generator) -> list:
        """Draw a batch of examples of similar length."""
        self.drawn += size
        while self.drawn > self.reuse * self.made:
            try:
                self._store(
                    self.inbox.get(timeout=5) if self.drawn > 2 * self.reuse * self.made else self.inbox.get_nowait()
                )
            except queue.Empty:
                break
        pick = rng.integers(0, len(self.examples), size * 4)
        ordered = sorted(pick, key=lambda at: len(self.examples[at].ids))
        at = int(rng.integers(0, 4)) * size
        return [self.examples[i] for i in ordered[at : at + size]]
