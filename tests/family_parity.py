"""A checkpoint's own processor in transformers beside ours: tiles, pixels and token ids of any family."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from image_settings import chat, picture, sizes

from edge_mllm.bundle.tilers import NativeResolution, Tiler
from edge_mllm.picture.tile_plan import plan_tiles
from edge_mllm.picture.tiling import Preprocessed, cut_tiles
from edge_mllm.prompt.build import build_prompt
from edge_mllm.prompt.template import ChatTemplate
from edge_mllm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from edge_mllm_export.families.registry import find_family
from edge_mllm_export.reference.processor import load_processor
from edge_mllm_export.reference.strips import packed_strip
from edge_mllm_export.write.tokenizer_files import tokenizer_json

GOLDEN_SIZES = [
    *[(394, 390), (380, 76), (500, 102), (768, 1536), (1080, 2400), (640, 480), (1920, 1080), (1024, 1024)],
    *[(3000, 4000), (2480, 3508), (224, 224), (1, 1), (1, 900), (900, 1)],
]
"""Width and height: the pictures on which tilers are known to differ, and extremes."""


@dataclass(frozen=True)
class Comparison:
    """One prompt through both."""

    ours: list[Preprocessed]
    pixels: np.ndarray
    """The reference's, float32 [tiles of all pictures, 3, h, w]."""
    ids: np.ndarray
    pixels_equal: bool
    ids_equal: bool


class Pair:
    """transformers' processor and ours, made from the same checkpoint directory."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Pair:
        """Of a checkpoint that is open already."""
        pair = cls.__new__(cls)
        pair._fill(checkpoint)
        return pair

    def __init__(self, directory: Path, **processor_settings: Any) -> None:
        self._fill(open_checkpoint(directory), **processor_settings)

    def _fill(self, checkpoint: Checkpoint, **processor_settings: Any) -> None:
        from tokenizers import Tokenizer

        self.checkpoint = checkpoint
        self.checkpoint.processor_settings.update(processor_settings)
        self.family = find_family(self.checkpoint)
        self.processor = load_processor(self.checkpoint, self.family)
        self.spec: Any = SimpleNamespace(
            image=self.family.image(self.checkpoint),
            vision=self.family.vision(self.checkpoint),
            prompt=self.family.prompt(self.checkpoint),
        )
        n_vocab = self.family.decoder(self.checkpoint).n_vocab
        self.tokenizer = Tokenizer.from_str(tokenizer_json(self.checkpoint, n_vocab))
        self.template = ChatTemplate(self.family.chat_template(self.checkpoint))

    def reference(self, rgbs: list[np.ndarray], question: str) -> dict[str, np.ndarray]:
        """What transformers makes of a prompt, as NumPy arrays."""
        from PIL import Image

        out = self.processor.inputs(chat(question, len(rgbs)), [Image.fromarray(rgb) for rgb in rgbs])
        return {name: np.asarray(value) for name, value in out.items()}

    def cut(self, rgbs: list[np.ndarray]) -> list[Preprocessed]:
        """Pictures of one conversation through ours."""
        image, vision = self.spec.image, self.spec.vision
        tiler = image.tiler_for(len(rgbs))
        return [cut_tiles(rgb, image, vision, plan_tiles(rgb.shape[1], rgb.shape[0], tiler)) for rgb in rgbs]

    def compare(self, rgbs: list[np.ndarray], question: str = "What is the total?\n") -> Comparison:
        expected = self.reference(rgbs, question)
        pixels = reference_tiles(expected, self.spec) if rgbs else np.empty((0, 3, 1, 1), np.float32)
        ours = self.cut(rgbs)
        mine = np.concatenate([item.pixels for item in ours]) if rgbs else pixels
        plans = [item.plan for item in ours]
        ids = build_prompt(chat(question, len(rgbs)), plans, self.spec, self.tokenizer, self.template).ids
        return Comparison(
            ours=ours,
            pixels=pixels,
            ids=expected["input_ids"][0],
            pixels_equal=bool(np.array_equal(mine, pixels)),
            ids_equal=bool(np.array_equal(ids, expected["input_ids"][0])),
        )

    def row(self, size: tuple[int, int]) -> dict[str, Any]:
        """One picture of a size, for a table; ``sha256`` is of the reference's pixels."""
        found = self.compare([picture(*size)])
        (ours,) = found.ours
        return {
            "width": size[0],
            "height": size[1],
            "grid": list(ours.grid),
            "tiles": len(found.pixels),
            "tokens": int((found.ids == self.spec.prompt.image_token_id).sum()),
            "sha256": hashlib.sha256(np.ascontiguousarray(found.pixels, "<f4").tobytes()).hexdigest(),
            "pixels_equal": found.pixels_equal,
            "ids_equal": found.ids_equal,
        }


def check_goldens(pair: Pair, tiler: Tiler) -> list[dict[str, Any]]:
    """The family's golden rows, which are from the reference; the phone's runtime reads them too.

    Every row is what ``tiler``, of the published checkpoint, plans with the pair's tokens a tile; one is made again.
    """
    rows = _golden_rows(pair, GOLDEN_SIZES)
    for row in rows:
        plan = plan_tiles(row["width"], row["height"], tiler)
        assert ([plan.rows, plan.cols], plan.count) == (row["grid"], row["tiles"])
        assert plan.tokens(pair.spec.vision.tokens_per_tile) == row["tokens"]
    return rows


def _golden_rows(pair: Pair, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    golden = Path(__file__).parent / "golden" / f"{pair.family.name}.json"
    rows: list[dict[str, Any]] = json.loads(golden.read_text(encoding="utf-8"))["results"][0]["rows"]
    assert [(row["width"], row["height"]) for row in rows] == sizes
    assert all(row["pixels_equal"] and row["ids_equal"] for row in rows)
    small = next(row for row in rows if (row["width"], row["height"]) == (380, 76))
    assert pair.row((380, 76)) == small
    return rows


def check_sizes(pair: Pair) -> None:
    """Twenty-four sizes equal to the reference."""
    for size in [(1, 1), (640, 480), *seeded_sizes(22, longest=1200)]:
        row = pair.row(size)
        assert row["pixels_equal"] and row["ids_equal"], row


def check_native_goldens(pair: Pair, tiler: NativeResolution) -> None:
    """:func:`check_goldens` for a family that takes any size up to a ratio of sides, in blocks of four patches."""
    possible = [size for size in GOLDEN_SIZES if max(size) <= 200 * min(size)]
    for row in _golden_rows(pair, possible):
        assert plan_tiles(row["width"], row["height"], tiler).tokens(1) == row["tokens"] == row["tiles"] // 4


def compare_system_message(pair: Pair) -> None:
    """A system message before a question about a picture has the reference's ids."""
    from PIL import Image

    rgb = picture(90, 50)
    question = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
        {"role": "user", "content": question},
    ]
    expected = pair.processor.inputs(messages, [Image.fromarray(rgb)])["input_ids"][0]
    ours = build_prompt(messages, [pair.cut([rgb])[0].plan], pair.spec, pair.tokenizer, pair.template)
    assert ours.ids.tolist() == expected.tolist()


def compare_pictures(pair: Pair, count: int, question: str) -> Comparison:
    """A question about ``count`` pictures of different sizes, equal through both."""
    found = pair.compare([picture(30 + 40 * number, 50) for number in range(count)], question)
    assert found.ids_equal and found.pixels_equal
    assert (found.ids == pair.spec.prompt.image_token_id).any() == bool(count)
    return found


def compare_conversation(pair: Pair, sizes: list[tuple[int, int]]) -> str:
    """Three pictures behind a system message and in two turns: ids as the reference's; what is written."""
    from PIL import Image

    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "image"}, {"type": "image"}]},
    ]
    plans = [plan_tiles(*size, pair.spec.image.tiler) for size in sizes]
    built = build_prompt(messages, plans, pair.spec, pair.tokenizer, pair.template)
    expected = pair.processor.inputs(messages, [Image.new("RGB", size) for size in sizes])
    np.testing.assert_array_equal(built.ids, expected["input_ids"][0])
    return built.text


def reference_tiles(out: dict[str, np.ndarray], spec: Any) -> np.ndarray:
    """Tiles of all pictures in order, without the tiles of zeros that fill up pictures with fewer tiles."""
    pixels, strip = out["pixel_values"], packed_strip(out, spec.vision.patches)
    if strip is not None:
        return strip
    if pixels.ndim == 2:  # packed patches
        return pixels
    if pixels.ndim == 4 or "image_sizes" not in out:
        return pixels.reshape(-1, *pixels.shape[-3:])
    tiler = spec.image.tiler_for(len(out["image_sizes"]))
    counts = [plan_tiles(int(width), int(height), tiler).count for height, width in out["image_sizes"]]
    for tiles, count in zip(pixels, counts, strict=True):
        assert not tiles[count:].any(), "the reference has more tiles"
    return np.concatenate([tiles[:count] for tiles, count in zip(pixels, counts, strict=True)])


def seeded_sizes(count: int, *, longest: int = 3000) -> list[tuple[int, int]]:
    """Sizes that every family's sweep uses."""
    return sizes(count, seed=2026, longest=longest)
