"""The published image settings of the longest-edge grid, and the reference processor for each of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_mllm.bundle.spec import ImageSpec, VisionSpec
from edge_mllm.bundle.tilers import LongestEdgeGrid


def pixels(seed: int, height: int = 60, width: int = 90) -> np.ndarray:
    """Noise, uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Settings:
    """preprocessor_config.json and processor_config.json of one published checkpoint, as far as they differ."""

    name: str
    longest_edge: int
    tile: int
    tokens: int

    @property
    def image(self) -> ImageSpec:
        return ImageSpec(
            tiler=LongestEdgeGrid(longest_edge=self.longest_edge, tile=self.tile),
            resample="lanczos",
            rescale=1 / 255,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        )

    @property
    def vision(self) -> VisionSpec:
        return VisionSpec(tokens_per_tile=self.tokens, tile_height=self.tile, tile_width=self.tile)

    def reference(self, **changes: Any) -> Any:
        """transformers' processor, PIL backend whatever else is installed."""
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

        settings = {
            "size": {"longest_edge": self.longest_edge},
            "max_image_size": {"longest_edge": self.tile},
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "resample": 1,
            "rescale_factor": 1 / 255,
        }
        return Idefics3ImageProcessorPil(**{**settings, **changes})


SETTINGS = (
    Settings("smolvlm-256m-500m", 2048, 512, 64),
    Settings("smolvlm-2.2b", 1536, 384, 81),
    Settings("idefics3-8b", 4 * 364, 364, 169),
)


def reference_processor(settings: Settings, checkpoint: Path) -> Any:
    """transformers' whole processor: the settings' image processor, a tiny checkpoint's tokenizer and template."""
    from transformers import AutoProcessor
    from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

    loaded = AutoProcessor.from_pretrained(checkpoint, backend="pil")
    return Idefics3Processor(
        settings.reference(), loaded.tokenizer, image_seq_len=settings.tokens, chat_template=loaded.chat_template
    )


def chat(question: str, pictures: int) -> list[dict[str, Any]]:
    """One user message: the pictures, then the question."""
    items: list[dict[str, Any]] = [{"type": "image"} for _ in range(pictures)]
    return [{"role": "user", "content": [*items, {"type": "text", "text": question}]}]


def reference_inputs(processor: Any, rgbs: list[np.ndarray], messages: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """pixel_values [1, tiles, 3, h, w] and input_ids [1, n] as transformers makes them."""
    from PIL import Image

    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    begin = processor.tokenizer.bos_token
    images = [Image.fromarray(rgb) for rgb in rgbs] or None
    out = processor(text=text, images=images, return_tensors="np", add_special_tokens=not text.startswith(begin))
    return dict(out)


def reference_tiles(processor: Any, rgb: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels [tiles, 3, h, w] and (rows, columns) of the reference; (0, 0) where it does not split."""
    from PIL import Image

    out = processor(Image.fromarray(rgb), return_tensors="np", return_row_col_info=True)
    return out["pixel_values"][0], (out["rows"][0][0], out["cols"][0][0])


def sizes(count: int, seed: int, longest: int) -> list[tuple[int, int]]:
    """Seeded (width, height), from one pixel up, ratios up to 20:1 both ways."""
    rng = random.Random(seed)
    found = []
    while len(found) < count:
        side = round(longest ** rng.uniform(0.2, 1))
        other = max(1, round(side / 20 ** rng.uniform(0, 1)))
        found.append((side, other) if rng.random() < 0.5 else (other, side))
    return found


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: a gradient, hard edges and noise, so every filter tap and every clip counts."""
    rng = np.random.default_rng((width, height, seed))
    x, y = np.arange(width)[None, :, None], np.arange(height)[:, None, None]
    base = (x * 255 // max(width, 2) + y * 127 // max(height, 2) + np.array([0, 85, 170])) % 256
    edges = ((x // 7 + y // 5) % 2) * 255
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(x % 3 == 0, noise, np.where(y % 2 == 0, base, edges)).astype(np.uint8)
