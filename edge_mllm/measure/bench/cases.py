"""Grids of cases, and the pictures and questions they are measured with."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from edge_mllm.errors import SettingError
from edge_mllm.measure.bench.result import Case
from edge_mllm.picture.reduction.spec import reduction_of

_WORDS = (
    *("what", "is", "written", "on", "the", "sign", "next", "to", "a", "door", "and", "how", "many", "people", "are"),
    *("there", "in", "front", "of", "it", "tell", "me", "which", "colour", "each", "one", "has", "then", "say", "why"),
)
_MAX_SIDE = 16384


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination of these is one case."""

    models: Sequence[str]
    engines: Sequence[str | None] = (None,)
    threads: Sequence[int | None] = (None,)
    image_sizes: Sequence[tuple[int, int]] = ((1024, 768),)
    images: Sequence[int] = (1,)
    prompt_tokens: Sequence[int] = (16,)
    answer_tokens: Sequence[int] = (64,)
    reductions: Sequence[str | None] = (None,)
    mmproj: str | None = None
    """The tower of a GGUF file; then there is one model."""
    prompt_lookup: int = 0
    prompt_weights: bool = True

    def cases(self) -> list[Case]:
        """The cases, models outermost.

        Raises:
            SettingError: a value is outside its range.
        """
        if self.mmproj is not None and len(self.models) != 1:
            raise SettingError("`mmproj` is the tower of one GGUF file; give one `model` with it")
        axes = (self.models, self.engines, self.threads, self.image_sizes, self.images)
        texts = (self.prompt_tokens, self.answer_tokens, self.reductions)
        out = []
        for model, engine, threads, size, images in itertools.product(*axes):
            for prompt, answer, reduction in itertools.product(*texts):
                # Without pictures their size says nothing: one case, not one per size.
                width, height = size if images else (0, 0)
                case = Case(
                    model=model,
                    engine=engine,
                    threads=threads,
                    image_width=width,
                    image_height=height,
                    images=images,
                    prompt_tokens=prompt,
                    answer_tokens=answer,
                    mmproj=self.mmproj,
                    prompt_lookup=self.prompt_lookup,
                    prompt_weights=self.prompt_weights,
                    reduction=reduction if images else None,
                )
                _check(case)
                if case not in out:
                    out.append(case)
        return out


def parse_size(text: str) -> tuple[int, int]:
    """``1024x768`` as (width, height).

    Raises:
        SettingError: it is not such a text.
    """
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise SettingError(f"a picture size is WIDTHxHEIGHT, such as 1024x768; got '{text}'")
    return int(width), int(height)


def sample_picture(width: int, height: int, seed: int) -> bytes:
    """A JPEG file that compresses like a photograph: soft gradients, edges and a little noise.

    Args:
        width: in pixels.
        height: in pixels.
        seed: another one gives another picture, so that nothing that was computed for the last one can be used again.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 64), max(2, width // 64), 3), dtype=np.uint8)
    soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(soft).astype(np.int16)
    for _ in range(12):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        box = (slice(y, y + max(1, height // 8)), slice(x, x + max(1, width // 6)))
        pixels[box] = rng.integers(0, 256, 3)
    pixels += rng.integers(-6, 7, pixels.shape, dtype=np.int16)
    stream = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def question(tokens: int, seed: int, count: Callable[[str], int]) -> str:
    """A question of at least ``tokens`` tokens and at most one word more.

    Args:
        tokens: at least 1.
        seed: the first word, a number, so that two questions share no prefix.
        count: tokens of a text in the model's own tokenizer.
    """
    words = [str(seed), *itertools.islice(itertools.cycle(_WORDS), tokens)]
    low, high = 1, len(words)
    while low < high:
        middle = (low + high) // 2
        if count(" ".join(words[:middle])) >= tokens:
            high = middle
        else:
            low = middle + 1
    return " ".join(words[:low])


def _check(case: Case) -> None:
    reduction_of(case.reduction)
    ranges = {
        "threads": (case.threads if case.threads is not None else 1, 1, 1024),
        "images": (case.images, 0, 64),
        "prompt tokens": (case.prompt_tokens, 1, 1_000_000),
        "answer tokens": (case.answer_tokens, 2, 1_000_000),
    }
    if case.images:
        ranges |= {
            "picture width": (case.image_width, 1, _MAX_SIDE),
            "picture height": (case.image_height, 1, _MAX_SIDE),
        }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise SettingError(f"{name} must be between {low} and {high}, got {value}")
