"""MiniCPM-V's processor, written a second time from the publisher's code, for the comparison with the runtime's.

From ``image_processing_minicpmv.py`` and ``processing_minicpmv.py`` of openbmb's releases and ``chat`` of
``modeling_minicpmv.py`` (Apache-2.0): sizes, slices, the text that stands for them, and where they go in the ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from transformers import BatchFeature

from edge_mllm_export.tokenizer.directory import file_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mllm.arrays import FloatArray

PICTURE = "(<image>./</image>)"
Size = tuple[int, int]


class SliceImageProcessor:
    """Pictures as slices of packed patches.

    Args:
        settings: Of preprocessor_config.json, defaults filled in.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.scale, self.patch = settings["scale_resolution"], settings["patch_size"]

    def grid(self, size: Size) -> Size | None:
        """Columns and rows of slices (``get_sliced_grid``)."""
        width, height = size
        log_ratio = math.log(width / height)
        multiple = min(math.ceil(width * height / (self.scale * self.scale)), self.settings["max_slice_nums"])
        if multiple <= 1:
            return None
        counts = [n for n in (multiple - 1, multiple, multiple + 1) if n != 1 and n <= self.settings["max_slice_nums"]]
        grids = [(m, count // m) for count in counts for m in range(1, count + 1) if count % m == 0]
        return min(grids, key=lambda grid: abs(log_ratio - math.log(grid[0] / grid[1])))

    def slices(self, picture: Image.Image) -> list[Image.Image]:
        """The whole picture, then its slices (``slice_image``)."""
        size, grid = picture.size, self.grid(picture.size)
        if grid is None:
            return [picture.resize(self._best_size(size, allow_upscale=True), Image.Resampling.BICUBIC)]
        source = picture.resize(self._best_size(size), Image.Resampling.BICUBIC)
        refined = picture.resize(self._refined_size(size, grid), Image.Resampling.BICUBIC)
        width, height = refined.width // grid[0], refined.height // grid[1]
        corners = [(left, top) for top in range(0, refined.height, height) for left in range(0, refined.width, width)]
        return [source, *(refined.crop((left, top, left + width, top + height)) for left, top in corners)]

    def _best_size(self, size: tuple[float, float], *, allow_upscale: bool = False) -> Size:
        width, height = size
        if width * height > self.scale * self.scale or allow_upscale:
            ratio = width / height
            height = int(self.scale / math.sqrt(ratio))
            width = int(height * ratio)
        return self._divided(width, self.patch), self._divided(height, self.patch)

    def _refined_size(self, size: Size, grid: Size) -> Size:
        cell = [self._divided(side, count) / count for side, count in zip(size, grid, strict=True)]
        width, height = self._best_size((cell[0], cell[1]), allow_upscale=True)
        return width * grid[0], height * grid[1]

    @staticmethod
    def _divided(length: float, unit: int) -> int:
        return max(round(length / unit) * unit, unit)

    def packed(self, slice_: Image.Image) -> tuple[FloatArray, Size]:
        """Patches float32 [patches, 3 * patch * patch], and their rows and columns."""
        values = np.asarray(slice_).astype(np.float32) / 255
        mean, std = (np.array(self.settings[name], np.float32) for name in ("norm_mean", "norm_std"))
        channels = ((values - mean) / std).transpose(2, 0, 1)
        rows, cols, side = slice_.height // self.patch, slice_.width // self.patch, self.patch
        blocks = channels.reshape(3, rows, side, cols, side).transpose(1, 3, 0, 2, 4)
        packed: FloatArray = np.ascontiguousarray(blocks.reshape(rows * cols, -1), np.float32)
        return packed, (rows, cols)

    def text(self, size: Size, number: int) -> str:
        """What stands for a picture in the prompt (``get_slice_image_placeholder``)."""
        given = self.settings
        visual = given["unk"] * given["image_feature_size"]
        name = f"{given['im_id_start']}{number}{given['im_id_end']}" if given["use_image_id"] else ""
        text, grid = name + given["im_start"] + visual + given["im_end"], self.grid(size)
        if grid is None:
            return str(text)
        row = (given["slice_start"] + visual + given["slice_end"]) * grid[0]
        return str(text + "\n".join([row] * grid[1]))


class MiniCPMVProcessor:
    """Messages and pictures to the model's inputs.

    Args:
        directory: Of the checkpoint, for its tokenizer.
        template: The chat template, which takes texts.
        variables: Of the template.
        settings: Of the image processor.
    """

    def __init__(
        self, directory: Path, template: str, variables: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        self.tokenizer = file_tokenizer(directory)
        self.image_processor = SliceImageProcessor(settings)
        self._template, self._variables = template, variables
        self.places = (PICTURE, *(str(settings[name]) for name in ("unk", *_BOUNDS)))

    @property
    def described(self) -> Mapping[str, Any]:
        """For the report of a verification."""
        return {
            "class": None,
            "written_from": "openbmb/MiniCPM-V: image_processing_minicpmv.py, processing_minicpmv.py, chat",
            "tokenizer": {"class": type(self.tokenizer).__name__},
        }

    def inputs(
        self, messages: Sequence[Mapping[str, Any]], pictures: Sequence[Image.Image], *, generate: bool = True
    ) -> Any:
        """input_ids, attention_mask; with pictures pixel_values, tgt_sizes and image_bound as the model takes them."""
        filled = [{**message, "content": _as_text(message["content"])} for message in messages]
        text: str = self.tokenizer.apply_chat_template(
            filled, chat_template=self._template, tokenize=False, add_generation_prompt=generate, **self._variables
        )
        chunks = text.split(PICTURE)
        if len(chunks) - 1 != len(pictures):
            raise ValueError(f"{len(chunks) - 1} places for {len(pictures)} pictures")
        cutter = self.image_processor
        marks = [cutter.text(picture.size, number) for number, picture in enumerate(pictures)]
        ids = self.tokenizer.encode(
            chunks[0] + "".join(mark + rest for mark, rest in zip(marks, chunks[1:], strict=True))
        )
        data: dict[str, Any] = {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}
        if pictures:
            packed = [cutter.packed(slice_) for picture in pictures for slice_ in cutter.slices(picture)]
            data["pixel_values"] = np.concatenate([patches for patches, _ in packed])
            data["tgt_sizes"] = np.array([grid for _, grid in packed], np.int64)
            data["image_bound"] = self._bounds(ids)
        return BatchFeature(data, tensor_type="pt")

    def _bounds(self, ids: Sequence[int]) -> Any:
        """Between the marks that begin and end whole pictures and slices (``_convert``)."""
        given, found = self.image_processor.settings, np.array(ids)
        number = {name: self.tokenizer.convert_tokens_to_ids(given[name]) for name in _BOUNDS}
        starts = np.flatnonzero((found == number["im_start"]) | (found == number["slice_start"])) + 1
        ends = np.flatnonzero((found == number["im_end"]) | (found == number["slice_end"]))
        return np.stack([starts, ends], axis=1)


_BOUNDS = ("im_start", "im_end", "slice_start", "slice_end")


def _as_text(content: Any) -> str:
    """Texts and pictures of a message, each on a line of its own."""
    if isinstance(content, str):
        return content
    return "\n".join(PICTURE if item["type"] == "image" else item["text"] for item in content)
